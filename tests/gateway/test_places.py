"""Watching many queued generations: each is told its place, and all share one read."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from wan22.v1 import generation_pb2
from wan22_gateway import lifecycle, places
from wan22_gateway.places import Places
from wan22_gateway.store.database import Database
from wan22_gateway.store.sqlite import SqliteDatabase
from wan22_gateway.watch import watch

from . import rows

WATCHERS = 60


async def test_many_watchers_share_one_read_and_each_is_told_its_place(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(places, "TOLD_AT_ONCE", 7)
    await database.write(rows.add_pool)
    await database.write(rows.add_worker)
    names = [await database.write(rows.add_generation) for _ in range(WATCHERS)]
    reads: Counter[str] = Counter()
    read = database.read

    async def counted(function: Any, *args: Any, **kwargs: Any) -> Any:
        reads[function.__name__] += 1
        return await read(function, *args, **kwargs)

    monkeypatch.setattr(database, "read", counted)
    found = Places(database)
    seen: dict[str, list[generation_pb2.GenerationEvent]] = {name: [] for name in names}
    told = asyncio.Event()

    async def follow(name: str) -> None:
        async for event in watch(database, found, "default", name, 1):
            seen[name].append(event)
            told.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        looking = group.create_task(found.run())
        watching = [group.create_task(follow(name)) for name in names]
        while not all(seen.values()):
            told.clear()
            await told.wait()
        first = [seen[name][0].queue.queue_position for name in names]
        assert first == list(range(1, WATCHERS + 1))
        single = reads["_look"]
        looks = reads["look"]
        await database.write(lifecycle.request_cancel, names[0])  # all others move up, and nothing wakes them
        while [seen[name][-1].queue.queue_position for name in names[1:]] != list(range(1, WATCHERS)):
            told.clear()
            await told.wait()
        assert reads["_look"] - single <= 2  # of the cancelled one alone
        assert reads["look"] > looks
        looking.cancel()
        for task in watching:
            task.cancel()
    assert seen[names[0]][-1].state_change.state == generation_pb2.Generation.CANCELLED
    assert all(event.sequence == 0 for name in names[1:] for event in seen[name])


async def test_what_nobody_follows_is_not_looked_at(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "LOOK_SECONDS", 0.0)
    await database.write(rows.add_pool)
    name = await database.write(rows.add_generation)
    found = Places(database)
    looking = asyncio.create_task(found.run())
    with found.follow(name) as one, found.follow(name) as another:
        async with asyncio.timeout(60):
            await one.news.wait()
            await another.news.wait()
        event = one.take()
        assert event is not None
        assert (event.queue.queue_position, one.take()) == (1, None)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)

    def nobody(*_: object) -> None:
        raise AssertionError("nobody follows")

    monkeypatch.setattr(database, "read", nobody)
    looking = asyncio.create_task(found.run())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not looking.done()
    looking.cancel()


async def test_nobody_looks_while_nothing_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "LOOK_SECONDS", 0.001)
    database = SqliteDatabase(tmp_path)
    await database.write(rows.add_pool)
    waiting = await database.write(rows.add_generation)
    reads: asyncio.Queue[str] = asyncio.Queue()
    read = database.read

    async def counted(function: Any, *args: Any, **kwargs: Any) -> Any:
        reads.put_nowait(function.__name__)
        return await read(function, *args, **kwargs)

    monkeypatch.setattr(database, "read", counted)
    found = Places(database)
    with found.follow(waiting):
        looking = asyncio.create_task(found.run())
        for _ in range(3):
            async with asyncio.timeout(60):
                assert await reads.get() == "look"
            await database.write(lambda tx: tx.notify("another topic"))
            assert reads.empty()
            await database.write(lambda tx: tx.notify("queue"))
        looking.cancel()
    await database.close()
