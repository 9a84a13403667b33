"""The places of queued generations that somebody watches: looked at together, once a second, in one read for all."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from wan22.v1 import generation_pb2
from wan22_gateway.generation_messages import queue_snapshot
from wan22_gateway.lifecycle import timestamp
from wan22_gateway.store import generations
from wan22_gateway.store.database import Database, Transaction

LOOK_SECONDS = 1.0
"""How often places are looked at; others' events move them, so nothing wakes their own watchers."""
MOVED = ("queue", "workers", "pools")
"""Topics of all that moves places."""
UNMOVED_SECONDS = 5.0
"""How long nobody looks while nothing has moved: what runs gets on, and a worker falls silent, without a commit."""
START_NEWS_SECONDS = 5.0
"""How much the predicted start must move to be told."""
ROWS_AT_ONCE = 200
"""Generations of one read, which takes some 10 ms."""
TOLD_AT_ONCE = 8
"""Watchers that are woken in one turn of the loop: writing to them takes some 2 ms."""


class Follower:
    """One watcher of a generation's place."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self._newest: generation_pb2.GenerationEvent | None = None
        self._told: generation_pb2.QueueSnapshot | None = None

    def offer(self, snapshot: generation_pb2.GenerationEvent) -> bool:
        """Takes what was seen; true, and news is set, when that says something new."""
        if not _is_news(snapshot.queue, self._told):
            return False
        self._newest, self._told = snapshot, snapshot.queue
        self.news.set()
        return True

    def take(self) -> generation_pb2.GenerationEvent | None:
        """What is new since the last time, if anything is."""
        self.news.clear()
        newest, self._newest = self._newest, None
        return newest


class Places:
    """Reads for all followers; `run` does the work."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._followers: defaultdict[str, set[Follower]] = defaultdict(set)
        self._anybody = asyncio.Event()

    @contextmanager
    def follow(self, generation: str) -> Iterator[Follower]:
        """Follows a generation's place while the context lasts; nothing comes while it is not QUEUED."""
        follower = Follower()
        self._followers[generation].add(follower)
        self._anybody.set()
        try:
            yield follower
        finally:
            self._followers[generation].discard(follower)
            if not self._followers[generation]:
                del self._followers[generation]

    async def run(self) -> None:
        """Looks until cancelled, while anybody follows."""
        looked, seen_at = 0.0, None
        while True:
            await self._anybody.wait()
            at, now = self._database.watermark(MOVED), time.monotonic()
            if at is None or at != seen_at or now - looked > UNMOVED_SECONDS:
                await self._look()
                looked, seen_at = now, at
            if not self._followers:
                self._anybody.clear()
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        followed = list(self._followers)
        for first in range(0, len(followed), ROWS_AT_ONCE):
            seen = await self._database.read(look, followed[first : first + ROWS_AT_ONCE])
            await self._tell(seen)

    async def _tell(self, seen: Sequence[tuple[str, generation_pb2.GenerationEvent]]) -> None:
        """Hands news out, a few at a time: who else waits for the loop comes in between."""
        told = 0
        for generation, snapshot in seen:
            for follower in tuple(self._followers.get(generation, ())):
                told += follower.offer(snapshot)
                if told == TOLD_AT_ONCE:
                    told = 0
                    await asyncio.sleep(0)


def look(tx: Transaction, ids: Sequence[str]) -> list[tuple[str, generation_pb2.GenerationEvent]]:
    """The places of those of some generations that are QUEUED."""
    now = timestamp(tx.now)
    return [
        (row.id, generation_pb2.GenerationEvent(event_time=now, queue=queue_snapshot(tx, row)))
        for row in generations.queued(tx, ids)
    ]


def _is_news(now: generation_pb2.QueueSnapshot, before: generation_pb2.QueueSnapshot | None) -> bool:
    """Whether a snapshot says something new: predicted starts always move a little."""
    if before is None or (now.queue_position, now.waiting_for) != (before.queue_position, before.waiting_for):
        return True
    moved = now.predicted_start_time.ToMicroseconds() - before.predicted_start_time.ToMicroseconds()
    return abs(moved) > START_NEWS_SECONDS * 1_000_000
