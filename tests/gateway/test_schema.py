"""The tables as the code has them and as the migrations make them are the same, in both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine

from wan22_gateway.store import migrate
from wan22_gateway.store.postgres_connections import Connections
from wan22_gateway.store.schema import metadata
from wan22_testing.postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path}/store.sqlite")
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        engine = Connections(server.url(server.create())).engine(1)
    yield engine
    engine.dispose()


def test_the_migrations_make_the_tables_that_the_code_has(engine: Engine) -> None:
    migrate.upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert migrate.revision(connection) == migrate.newest()
