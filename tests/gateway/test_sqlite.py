from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, insert, select, text, update

from wan22.errors import FailedPrecondition, Reason, ResourceExhausted
from wan22_gateway.store import generations
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.schema import objects
from wan22_gateway.store.sqlite import SqliteDatabase


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    opened = SqliteDatabase(tmp_path / "store")
    yield opened
    await opened.close()


def add(tx: Transaction, key: str) -> str:
    tx.execute(insert(objects).values(key=key, state="live", create_time=tx.now))
    return key


def count(tx: Transaction) -> int:
    return int(tx.execute(select(func.count()).select_from(objects)).scalar_one())


async def test_a_second_process_on_the_folder_is_told_who_holds_it(store: SqliteDatabase) -> None:
    program = (
        "import asyncio, pathlib, sys\n"
        "from wan22_gateway.store.sqlite import SqliteDatabase\n"
        "async def main(): SqliteDatabase(pathlib.Path(sys.argv[1]))\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, str(store.path.parent)]
    second = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert second.returncode != 0
    assert f"process id {os.getpid()}" in second.stderr


async def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    first = SqliteDatabase(folder)
    await first.close()
    with sqlite3.connect(folder / "store.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(FailedPrecondition, match="schema 9999") as caught:
        SqliteDatabase(folder)
    assert caught.value.reason is Reason.STORE_TOO_NEW


async def test_what_a_write_could_undo_is_in_no_temporary_file(store: SqliteDatabase) -> None:
    def add_many(tx: Transaction) -> None:
        for number in range(1000):
            add(tx, f"{number:0200d}")

    def change_all(tx: Transaction) -> list[str]:
        tx.execute(update(objects).values(state="garbage"))  # more pages than SQLite keeps in memory by itself
        return [os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()]

    await store.write(add_many)
    assert not [file for file in await store.write(change_all) if "etilqs" in file]


async def test_a_full_disk_fails_the_writes_and_leaves_the_store_working(store: SqliteDatabase) -> None:
    def limit(tx: Transaction, spare: int) -> None:
        pages = tx.execute(text("PRAGMA page_count")).scalar_one()
        tx.execute(text(f"PRAGMA max_page_count = {pages + spare}"))

    def add_much(tx: Transaction) -> None:
        for number in range(5000):
            add(tx, f"{number:0200d}")

    await store.write(limit, 0)
    with pytest.raises(ResourceExhausted, match="Free space"):
        await store.write(add_much)
    assert await store.read(count) == 0
    await store.write(limit, 1_000_000)
    await store.write(add_much)
    assert await store.read(count) == 5000


async def test_a_few_are_looked_up_without_going_through_all_that_wait(store: SqliteDatabase) -> None:
    asked: list[tuple[str, Any]] = []
    event.listen(store._reader_engine, "before_cursor_execute", lambda *call: asked.append(call[2:4]))
    ids = [str(number) for number in range(64)]
    assert await store.read(generations.queued, ids) == []
    new: Any = dict.fromkeys(ids)
    assert await store.read(generations.untouched, new) == []
    selects = [(statement, values) for statement, values in asked if statement.startswith("SELECT")]
    with closing(sqlite3.connect(store.path)) as connection:
        steps = [connection.execute(f"EXPLAIN QUERY PLAN {each}", values).fetchall()[0] for each, values in selects]
    by_id = "SEARCH generations USING INDEX sqlite_autoindex_generations_1 (id=?)"
    assert [step[3] for step in steps] == [by_id, by_id]
