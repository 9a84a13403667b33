"""What is remembered of the store is never older than a write that was answered."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from wan22_gateway.store.commit_counts import CommitCounts
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.recall import Recall
from wan22_gateway.store.schema import identity
from wan22_gateway.store.sqlite import SqliteDatabase


class Counted:
    """Reads and raises the one number that a test keeps in the store."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self, tx: Transaction) -> int:
        self.reads += 1
        return int.from_bytes(tx.execute(select(identity.c.page_key)).scalar_one())

    def raise_to(self, tx: Transaction, value: int) -> int:
        tx.execute(update(identity).values(page_key=value.to_bytes(8)))
        tx.notify("number")
        return value


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(tmp_path)
    yield database
    await database.close()


async def test_a_value_is_read_once_until_a_commit_touches_its_topic(sqlite: SqliteDatabase) -> None:
    counted, recall = Counted(), Recall[int](sqlite, 10, 60.0)
    await sqlite.write(counted.raise_to, 1)
    assert [await recall.get("k", ["number"], counted.read) for _ in range(3)] == [1, 1, 1]
    assert counted.reads == 1
    await sqlite.write(lambda tx: tx.notify("another topic"))
    assert await recall.get("k", ["number"], counted.read) == 1
    assert counted.reads == 1
    await sqlite.write(counted.raise_to, 2)
    assert await recall.get("k", ["number"], counted.read) == 2


async def test_readers_beside_a_writer_never_see_less_than_was_answered(database: Database) -> None:
    counted, recall = Counted(), Recall[int](database, 10, 60.0)
    answered = await database.write(counted.raise_to, 1)
    over = False

    async def look() -> int:
        seen = 0
        while not over:
            before = answered
            value = await recall.get("k", ["number"], counted.read)
            assert value >= max(before, seen)
            seen = value
            await asyncio.sleep(0)
        return seen

    async with asyncio.TaskGroup() as readers:
        looking = [readers.create_task(look()) for _ in range(4)]
        for value in range(2, 100):
            answered = await database.write(counted.raise_to, value)
        over = True
    assert all(reader.result() <= 99 for reader in looking)
    assert await recall.get("k", ["number"], counted.read) == 99


async def test_values_end_by_age_and_those_not_used_go_first(sqlite: SqliteDatabase) -> None:
    counted = Counted()
    await sqlite.write(counted.raise_to, 1)
    aged = Recall[int](sqlite, 10, 0.0)
    for _ in range(2):
        await aged.get("k", ["number"], counted.read)
    assert counted.reads == 2
    small = Recall[int](sqlite, 2, 60.0)
    for key in ("a", "b", "a", "c", "a"):
        await small.get(key, ["number"], counted.read)
    assert counted.reads == 5  # "b" gave way to "c"
    await small.get("b", ["number"], counted.read)
    assert counted.reads == 6


async def test_what_is_too_old_to_be_shown_takes_no_memory(sqlite: SqliteDatabase) -> None:
    class Value:
        pass

    def make(_: Transaction) -> Value:
        return Value()

    recall = Recall[Value](sqlite, 10, 0.0)
    first = weakref.ref(await recall.get("a", [], make))
    await recall.get("b", [], make)
    async with asyncio.timeout(60):
        while first() is not None:  # noqa: ASYNC110  # the thread that read it lets go of it a moment later
            await asyncio.sleep(0.01)


async def test_those_who_ask_at_once_share_one_read(sqlite: SqliteDatabase) -> None:
    counted, recall = Counted(), Recall[int](sqlite, 10, 60.0)
    await sqlite.write(counted.raise_to, 1)
    values = await asyncio.gather(*(recall.get("k", ["number"], counted.read) for _ in range(8)))
    assert (values, counted.reads) == ([1] * 8, 1)


async def test_a_reader_that_goes_away_leaves_the_others_to_read(sqlite: SqliteDatabase) -> None:
    counted, recall = Counted(), Recall[int](sqlite, 10, 60.0)
    await sqlite.write(counted.raise_to, 1)
    first = asyncio.create_task(recall.get("k", ["number"], counted.read))
    second = asyncio.create_task(recall.get("k", ["number"], counted.read))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 1


def test_generations_share_no_slot_with_other_topics() -> None:
    counts = CommitCounts()
    before = counts.watermark(["pools"])
    counts.begin([f"generation/{number}" for number in range(100_000)])
    counts.end()
    assert counts.watermark(["pools"]) == before


async def test_what_is_raised_is_not_remembered(sqlite: SqliteDatabase) -> None:
    recall = Recall[int](sqlite, 10, 60.0)

    def fail(_: Transaction) -> int:
        raise LookupError

    for _ in range(2):
        with pytest.raises(LookupError):
            await recall.get("k", ["number"], fail)


def test_there_is_no_watermark_while_a_commit_is_under_way() -> None:
    counts = CommitCounts()
    before = counts.watermark(["a", "b"])
    assert before == counts.watermark(["a", "b"])
    counts.begin(["a"])
    assert counts.watermark(["a", "b"]) is None
    counts.end()
    assert counts.watermark(["a", "b"]) not in {None, before}
