"""The tables as the code has them and as the migrations make them are the same, in both databases."""

from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine

from wan22_gateway.store import migrate
from wan22_gateway.store.postgres_connections import Connections
from wan22_gateway.store.schema import metadata


def engine_of(store: Path | str) -> Engine:
    if isinstance(store, str):
        return Connections(store).engine(1)
    store.mkdir()
    return create_engine(f"sqlite:///{store}/store.sqlite")


def test_the_migrations_make_the_tables_that_the_code_has(store: Path | str) -> None:
    engine = engine_of(store)
    migrate.upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert migrate.revision(connection) == migrate.newest()
    engine.dispose()
