from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import StatementError

from wan22.errors import FailedPrecondition
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.schema import objects


def add(tx: Transaction, key: str) -> str:
    tx.execute(insert(objects).values(key=key, state="live", create_time=tx.now))
    return key


def count(tx: Transaction) -> int:
    return int(tx.execute(select(func.count()).select_from(objects)).scalar_one())


async def test_a_read_after_a_write_sees_it(database: Database) -> None:
    for number in range(20):
        await database.write(add, str(number))
        assert await database.read(count) == number + 1


async def test_concurrent_writes_all_land(database: Database) -> None:
    keys = [f"k{number}" for number in range(500)]
    assert await asyncio.gather(*(database.write(add, key) for key in keys)) == keys
    assert await database.read(count) == 500


async def test_a_failing_write_undoes_itself_alone(database: Database) -> None:
    def add_then_fail(tx: Transaction) -> None:
        add(tx, "undone")
        raise FailedPrecondition("no")

    results = await asyncio.gather(
        database.write(add, "a"), database.write(add_then_fail), database.write(add, "b"), return_exceptions=True
    )
    assert results[0] == "a"
    assert isinstance(results[1], FailedPrecondition)
    assert results[2] == "b"
    assert await database.read(count) == 2


async def test_an_error_says_nothing_of_what_was_to_be_stored(database: Database) -> None:
    def half(tx: Transaction) -> None:
        tx.execute(text("INSERT INTO objects (key, state) VALUES (:key, :state)"), {"key": "a prompt"})

    with pytest.raises(StatementError) as caught:
        await database.write(half)
    assert "a prompt" not in str(caught.value)


async def test_listeners_wake_after_the_commit_of_their_topic_alone(database: Database) -> None:
    def notify(tx: Transaction) -> None:
        tx.notify("mine")

    with database.listen("mine") as mine, database.listen("other") as other:
        await database.write(notify)
        assert mine.is_set()
        assert not other.is_set()
