from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from wan22_gateway.store.database import Database
from wan22_gateway.store.opening import open_store
from wan22_gateway.store.schema import identity, metadata
from wan22_testing.postgres import PostgresServer
from wan22_testing.s3_server import BUCKET, S3Server


@pytest.fixture(scope="session")
def one_for_all(postgres: PostgresServer, migrated: str) -> str:
    """The URL of a database that tests use one after the other."""
    return postgres.url(postgres.create(migrated))


@pytest.fixture
def postgres_store(one_for_all: str) -> str:
    """The URL of a migrated database with nothing in it: emptying one takes a tenth of copying one."""
    with psycopg.connect(one_for_all) as connection:
        for table in reversed(metadata.sorted_tables):
            if table is not identity:
                connection.execute(SQL("DELETE FROM {}").format(Identifier(table.name)))
        connection.execute("ALTER SEQUENCE generations_position_seq RESTART")
    return one_for_all


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where an empty store is: the test runs once for each kind."""
    if request.param == "sqlite":
        return tmp_path / "store"
    url: str = request.getfixturevalue("postgres_store")
    return url


@pytest.fixture
async def database(store: Path | str) -> AsyncIterator[Database]:
    opened = await open_store(store, None)
    yield opened
    await opened.close()


@pytest.fixture(params=["folder", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place of its own for each test, of each kind."""
    if request.param == "folder":
        return str(tmp_path / "videos")
    server: S3Server = request.getfixturevalue("s3_server")
    environment: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    for name, value in server.environment.items():
        environment.setenv(name, value)
    return f"s3://{BUCKET}/{tmp_path.name}"
