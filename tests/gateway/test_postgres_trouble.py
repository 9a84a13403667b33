"""PostgreSQL killed, cut off, or not as this version needs it: what was accepted stays, and gateways ride it out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from wan22.errors import FailedPrecondition, Reason, Unavailable
from wan22_gateway.store import pools
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.migrate import newest
from wan22_gateway.store.opening import open_store
from wan22_gateway.store.postgres_connections import Connections
from wan22_gateway.store.schema import commits
from wan22_gateway.store.schema import generations as generation_table
from wan22_testing.postgres import PostgresServer

from . import rows

LEASE, RESUME_WAIT = 15.0, 60.0


@pytest.fixture(scope="module")
def mortal() -> Iterator[PostgresServer]:
    """A server that tests kill."""
    with PostgresServer() as server:
        yield server


def prepare(tx: Transaction) -> None:
    rows.add_pool(tx)
    rows.add_worker(tx)


def count(tx: Transaction) -> int:
    return int(tx.execute(select(func.count()).select_from(generation_table)).scalar_one())


async def test_nothing_is_lost_or_doubled_when_the_server_is_killed_under_load(
    mortal: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # how long a recovery takes says something of the machine alone
    monkeypatch.setattr("wan22_gateway.store.postgres_connections.RIDE_OUT_SECONDS", 60.0)
    url = await migrated_on(mortal)
    stores = [await open_store(url, None) for _ in range(2)]
    await stores[0].write(prepare)
    accepted: list[str] = []
    news = asyncio.Event()

    async def create(store: Database, caller: int) -> None:
        for number in range(25):
            accepted.append(await store.write(rows.add_generation, request_id=f"{caller}-{number}"))
            if number % 5 == 4:
                news.set()

    async def disturb() -> None:
        for _ in range(2):
            news.clear()
            async with asyncio.timeout(60):
                await news.wait()
            await asyncio.to_thread(mortal.kill)
            await asyncio.to_thread(mortal.start)

    with stores[1].listen("after") as woken:
        await asyncio.gather(disturb(), *(create(stores[caller % 2], caller) for caller in range(8)))
        found = await stores[0].read(lambda tx: tx.execute(select(generation_table.c.id)).scalars().all())
        assert len(accepted) == len(set(accepted))
        assert set(accepted) == set(found)
        assert len(accepted) == 8 * 25  # ridden out: none had to be told
        woken.clear()
        async with asyncio.timeout(60):
            while not woken.is_set():  # its connection for wake-ups is made anew, a moment after the others
                await stores[0].write(lambda tx: tx.notify("after"))
                await asyncio.sleep(0.05)
    for store in stores:
        await store.close()


async def test_who_listens_is_woken_after_a_cut_since_something_may_have_been_missed(mortal: PostgresServer) -> None:
    url = await migrated_on(mortal)
    store = await open_store(url, None)
    with store.listen("anything") as wake:
        await asyncio.to_thread(mortal.stop)
        await asyncio.to_thread(mortal.start)
        async with asyncio.timeout(60):
            await wake.wait()
    await store.close()


async def test_a_server_that_stays_away_is_unavailable_and_later_there_again(
    mortal: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wan22_gateway.store.postgres_connections.RIDE_OUT_SECONDS", 0.5)
    url = await migrated_on(mortal)
    store = await open_store(url, None)
    await asyncio.to_thread(mortal.stop)
    with pytest.raises(Unavailable, match=r"store, PostgreSQL, is away \(.*the call can be repeated") as caught:
        await store.write(rows.add_pool)
    assert (caught.value.retry_after, caught.value.reason) == (1, Reason.STORE_UNAVAILABLE)
    with pytest.raises(Unavailable):
        await store.read(count)
    await asyncio.to_thread(mortal.start)
    await store.write(rows.add_pool)
    assert len(await store.read(pools.list_all)) == 1
    await store.close()


async def test_old_commits_are_forgotten(postgres_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wan22_gateway.store.postgres.KEPT_SECONDS", 0)
    store = await open_store(postgres_store, None)
    for _ in range(5):
        await store.write(lambda tx: tx.notify("queue"))
    await store.write(rows.add_pool)
    assert await store.read(lambda tx: tx.execute(select(func.count()).select_from(commits)).scalar_one()) <= 2
    await store.close()


async def test_a_password_comes_from_its_file_at_each_connection(
    postgres: PostgresServer, migrated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wan22_gateway.store.postgres_connections.RIDE_OUT_SECONDS", 0.5)
    url = postgres.tcp_url(postgres.create(migrated))
    password = tmp_path / "password"
    password.write_text(postgres.password + "\n")
    store = await open_store(url, password)
    assert await store.read(count) == 0
    await store.close()
    password.write_text("wrong")
    with pytest.raises(Unavailable, match="password authentication failed") as caught:
        await open_store(url, password)
    assert "wrong" not in str(caught.value)


async def test_a_schema_that_is_too_far_ahead_is_refused_and_the_next_one_served(
    postgres: PostgresServer, migrated: str
) -> None:
    url = postgres.url(postgres.create(migrated))
    now, following, after = (f"{int(newest()) + ahead:04}" for ahead in range(3))
    with Connections(url).connect() as connection:
        connection.execute("UPDATE alembic_version SET version_num = %s", [following])
    store = await open_store(url, None)
    assert await store.read(count) == 0
    await store.close()
    with Connections(url).connect() as connection:
        connection.execute("UPDATE alembic_version SET version_num = %s", [after])
    with pytest.raises(FailedPrecondition, match=f"schema {after}.*serves {now} and the one after it") as caught:
        await open_store(url, None)
    assert caught.value.reason is Reason.STORE_TOO_NEW


async def test_an_empty_database_is_waited_for_and_in_the_end_refused(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wan22_gateway.store.postgres.MIGRATION_SECONDS", 0.0)
    with pytest.raises(FailedPrecondition, match=r"wan22_gateway\.migrate") as caught:
        await open_store(postgres.url(postgres.create()), None)
    assert caught.value.reason is Reason.STORE_TOO_OLD


async def migrated_on(server: PostgresServer) -> str:
    from wan22_gateway.store.postgres import migrate_postgres

    url = server.url(server.create())
    await asyncio.to_thread(migrate_postgres, url, None)
    return url
