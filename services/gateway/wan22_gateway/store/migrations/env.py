"""Alembic's entry: one connection, one transaction for all migrations."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine

from wan22_gateway.store.schema import metadata

engine = create_engine(context.config.get_main_option("sqlalchemy.url") or "")
with engine.begin() as connection:
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
