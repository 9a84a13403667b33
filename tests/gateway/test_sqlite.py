from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text

from wan22.errors import FailedPrecondition, Reason, ResourceExhausted
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
