from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text

from wan22.errors import FailedPrecondition, Reason, ResourceExhausted
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


async def test_listeners_wake_after_the_commit_of_their_topic_alone(database: Database) -> None:
    def notify(tx: Transaction) -> None:
        tx.notify("mine")

    with database.listen("mine") as mine, database.listen("other") as other:
        await database.write(notify)
        assert mine.is_set()
        assert not other.is_set()


async def test_a_second_process_on_the_folder_is_told_who_holds_it(database: Database) -> None:
    program = (
        "import asyncio, pathlib, sys\n"
        "from wan22_gateway.store.database import Database\n"
        "async def main(): Database(pathlib.Path(sys.argv[1]))\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, str(database.path.parent)]
    second = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert second.returncode != 0
    assert f"process id {os.getpid()}" in second.stderr


async def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    first = Database(folder)
    await first.close()
    with sqlite3.connect(folder / "store.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(FailedPrecondition, match="schema 9999") as caught:
        Database(folder)
    assert caught.value.reason is Reason.STORE_TOO_NEW


async def test_a_full_disk_fails_the_writes_and_leaves_the_store_working(database: Database) -> None:
    def limit(tx: Transaction, spare: int) -> None:
        pages = tx.execute(text("PRAGMA page_count")).scalar_one()
        tx.execute(text(f"PRAGMA max_page_count = {pages + spare}"))

    def add_much(tx: Transaction) -> None:
        for number in range(5000):
            add(tx, f"{number:0200d}")

    await database.write(limit, 0)
    with pytest.raises(ResourceExhausted, match="Free space"):
        await database.write(add_much)
    assert await database.read(count) == 0
    await database.write(limit, 1_000_000)
    await database.write(add_much)
    assert await database.read(count) == 5000
