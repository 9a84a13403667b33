"""Alembic's entry: all migrations in the one transaction that `migrate.upgrade` has begun."""

from __future__ import annotations

from alembic import context

from wan22_gateway.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
