"""A deleted generation leaves nothing: no prompt in the store's files, no object, no event; its usage stays."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, select

from wan22.client import Client
from wan22.errors import FailedPrecondition, NotFound, ResourceExhausted
from wan22.v1 import generation_pb2
from wan22.v1.generation_pb2 import Generation
from wan22_gateway.store import generations
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.schema import events, metadata
from wan22_gateway.store.schema import generations as table
from wan22_gateway.store.sqlite import SqliteDatabase

from . import rows
from .http.paced_worker import PacedWorkerServicer
from .scripted_worker import T2V, ScriptedWorkerServicer, gateway_with, until

SECRET = "nobody but me may ever read this of heron number"


def found_in(folder: Path, text: str | bytes) -> list[str]:
    """The files under a folder that hold a text; one that is deleted meanwhile holds none."""
    wanted = text.encode() if isinstance(text, str) else text
    found = []
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        with suppress(FileNotFoundError):
            if wanted in path.read_bytes():
                found.append(str(path.relative_to(folder)))
    return found


def rows_of(tx: Transaction, each: Table) -> list[Any]:
    return list(tx.execute(select(each)).all())


async def make(client: Client, number: int) -> Generation:
    return await client.create(variant=T2V, prompt=f"{SECRET} {number}.", labels={"team": f"label of {number}."})


async def test_after_deletion_the_prompt_is_in_no_file_and_usage_stays(tmp_path: Path) -> None:
    worker = ScriptedWorkerServicer()
    async with asyncio.timeout(60), gateway_with(tmp_path, worker) as client:
        made = [await make(client, number) for number in range(30)]
        done = [await client.wait(generation.name) for generation in made]
        assert {generation.state for generation in done} == {Generation.SUCCEEDED}
        assert found_in(tmp_path, f"{SECRET} 7.") != []
        (before,) = await client.usage(1)
        for generation in made[::2]:
            await client.delete(generation.name)
        with pytest.raises(NotFound):
            await client.get(made[0].name)

        kept = {generation.name.removeprefix("generations/") for generation in made[1::2]}

        async def is_gone() -> bool:
            left = {path.name for path in (tmp_path / "videos" / "videos").iterdir()}
            return left == kept and not any(found_in(tmp_path, f"{SECRET} {number}.") for number in range(0, 30, 2))

        await until(is_gone)
        assert found_in(tmp_path, "label of 4.") == []
        assert found_in(tmp_path, f"{SECRET} 7.") != []  # those that stay, stay
        assert (await client.usage(1))[0] == before
    assert found_in(tmp_path, SECRET + " 2.") == []
    with closing(sqlite3.connect(tmp_path / "gateway" / "store.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_an_unfinished_generation_is_deleted_by_force_alone(tmp_path: Path) -> None:
    worker = ScriptedWorkerServicer(*[lambda _: []] * 1000)
    async with asyncio.timeout(60), gateway_with(tmp_path, worker) as client:
        await make(client, 0)
        waiting = await make(client, 1)
        with pytest.raises(FailedPrecondition, match="cancel it first, or delete with force"):
            await client.delete(waiting.name)
        await client.delete(waiting.name, force=True)

        async def is_gone() -> bool:
            return found_in(tmp_path, f"{SECRET} 1.") == []

        await until(is_gone)


async def test_no_table_keeps_what_was_asked_for(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "store")
    try:
        await database.write(rows.add_pool)
        generation = await database.write(lambda tx: rows.add_generation(tx, request_id="r1", tenant="alice"))
        text = generation_pb2.Parameters(prompt=SECRET).SerializeToString()
        await database.write(lambda tx: tx.execute(table.update().values(parameters=text, state="CANCELLED")))
        await database.write(lambda tx: generations.remove(tx, generations.get(tx, "alice", generation)))
        assert await database.read(lambda tx: tx.execute(select(events)).all()) == []
        for each in metadata.sorted_tables:
            kept = await database.read(rows_of, each)
            assert SECRET not in str(kept)
        async with asyncio.timeout(60):
            await until(database.erase)
        assert found_in(tmp_path, SECRET) == []
    finally:
        await database.close()


async def test_erasing_gives_way_to_a_long_read(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "store")
    try:
        await database.write(rows.add_pool)
        with closing(sqlite3.connect(database.path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM pools").fetchall()
            await database.write(rows.add_generation)
            assert not await database.erase()
            await database.write(rows.add_generation)
        assert await database.erase()
        assert (tmp_path / "store" / "store.sqlite-wal").stat().st_size == 0
    finally:
        await database.close()


async def test_erasing_on_a_full_disk_is_a_typed_error_and_works_once_there_is_room(small_disk: Path) -> None:
    database = SqliteDatabase(small_disk / "store")
    try:
        await database.write(rows.add_pool)
        for _ in range(40):
            await database.write(rows.add_generation)  # more pages than the file has
        with suppress(OSError), (small_disk / "filler").open("ab", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        with pytest.raises(ResourceExhausted, match="Free space on its disk"):
            await database.erase()
        assert len(await database.read(lambda tx: tx.execute(select(table)).all())) == 40
        (small_disk / "filler").unlink()
        assert await database.erase()
    finally:
        await database.close()


async def test_after_deletion_no_file_holds_a_preview(tmp_path: Path) -> None:
    worker = PacedWorkerServicer()
    worker.go.clear()
    async with asyncio.timeout(60), gateway_with(tmp_path, worker) as client:
        made = await client.create(variant=T2V, prompt="a heron", preview_interval=1)
        async for event in client.watch(made.name):
            if event.HasField("preview"):
                image = event.preview.image
                assert found_in(tmp_path, image) != []
                worker.go.set()
        await client.delete(made.name)

        async def is_gone() -> bool:
            return not found_in(tmp_path, image)

        await until(is_gone)
