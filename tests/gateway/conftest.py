from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from wan22_gateway.store.database import Database
from wan22_gateway.store.opening import open_store
from wan22_gateway.store.postgres import migrate_postgres
from wan22_testing.postgres import PostgresServer, programs


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server that every test may use, and none may stop."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed")
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def migrated(postgres: PostgresServer) -> str:
    """The name of a migrated database, to be copied."""
    name = postgres.create()
    migrate_postgres(postgres.url(name), None)
    return name


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where an empty store is: the test runs once for each kind."""
    if request.param == "sqlite":
        return tmp_path / "store"
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return postgres.url(postgres.create(request.getfixturevalue("migrated")))


@pytest.fixture
async def database(store: Path | str) -> AsyncIterator[Database]:
    opened = await open_store(store, None)
    yield opened
    await opened.close()
