from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from wan22.errors import NotFound
from wan22_gateway.store.database import READERS, Database, Transaction
from wan22_gateway.store.group_reader import GROUP_LIMIT, GroupReader, Read
from wan22_gateway.store.opening import open_store


@pytest.fixture
async def shared(postgres_store: str) -> AsyncIterator[Database]:
    opened = await open_store(postgres_store, None)
    yield opened
    await opened.close()


async def while_all_read(store: Database, *waiting: Any) -> list[Any]:
    """Has all readers busy until these reads wait, and returns what comes of each."""
    busy, go = threading.Semaphore(0), threading.Event()

    def block(_: Transaction) -> None:
        busy.release()
        assert go.wait(60)

    blocks = []
    for _ in range(READERS):
        blocks.append(asyncio.create_task(store.read(block)))
        await asyncio.to_thread(busy.acquire)
    reads = asyncio.gather(*(store.read(function) for function in waiting), return_exceptions=True)
    await asyncio.sleep(0)  # they are queued
    go.set()
    await asyncio.gather(*blocks)
    return await reads


def began(tx: Transaction) -> Any:
    return tx.execute(text("SELECT now()")).scalar_one()


async def test_reads_that_wait_share_a_snapshot_and_one_that_fails_fails_alone(shared: Database) -> None:
    def missing(_: Transaction) -> None:
        raise NotFound("it is not there")

    first, failure, second = await while_all_read(shared, began, missing, began)
    assert isinstance(failure, NotFound)
    assert first == second  # PostgreSQL's now() is when the transaction began


async def test_a_statement_that_breaks_the_transaction_breaks_its_own_read_alone(shared: Database) -> None:
    def wrong(tx: Transaction) -> None:
        tx.execute(text("SELECT 1 / 0"))

    first, failure, second = await while_all_read(shared, began, wrong, began)
    assert isinstance(failure, DBAPIError)
    assert first != second  # each was made anew, by itself


async def test_a_shared_read_sees_every_write_that_was_answered_before_it(shared: Database) -> None:
    def last(tx: Transaction) -> int:
        return int(tx.execute(text("SELECT count(*) FROM labels_of_a_test")).scalar_one())

    def add(tx: Transaction) -> None:
        tx.execute(text("INSERT INTO labels_of_a_test VALUES (1)"))

    await shared.write(lambda tx: tx.execute(text("CREATE TABLE labels_of_a_test (number INT)")))

    async def caller(seen: list[bool]) -> None:
        for _ in range(10):
            before = await shared.read(last)
            await shared.write(add)
            seen.append(await shared.read(last) > before)

    seen: list[bool] = []
    await asyncio.gather(*(caller(seen) for _ in range(8)))
    assert await shared.read(last) == 80
    await shared.write(lambda tx: tx.execute(text("DROP TABLE labels_of_a_test")))
    assert seen == [True] * 80


async def test_a_group_is_bounded_and_closing_makes_what_is_queued() -> None:
    loop = asyncio.get_running_loop()
    groups: list[int] = []
    begun, go = threading.Event(), threading.Event()

    def make(group: Sequence[Read]) -> None:
        begun.set()
        assert go.wait(60)
        groups.append(len(group))
        for read in group:
            read.result = len(group)
            loop.call_soon_threadsafe(read.settle)

    reader = GroupReader("test", 1, make)
    futures = [loop.create_future() for _ in range(GROUP_LIMIT + 3)]
    reader.add(Read(lambda _: None, futures[0]))
    await asyncio.to_thread(begun.wait)
    for future in futures[1:]:
        reader.add(Read(lambda _: None, future))
    go.set()
    await asyncio.to_thread(reader.close)
    await asyncio.gather(*futures)
    assert groups == [1, GROUP_LIMIT, 2]
