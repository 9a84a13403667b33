"""One event each: something happens to a part of the site, and a while later it is over."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from wan22_testing.faults.site import LEASE_SECONDS, Site
from wan22_testing.service_process import ServiceProcess

log = logging.getLogger(__name__)
REST_SECONDS = (1.0, 6.0)
"""For which a part is left alone after an event, drawn between these: else what is over at once, such as the end of a
session, happened all the time, and nothing else could."""
START_SECONDS = 600.0
"""For which a start is waited for: on a busy machine it takes minutes, which is nobody's fault."""
STARTS = 10
"""Tries to start what was killed: a full disk, or a port that is still taken, may be in its way."""


class Attacks:
    """Draws events by a seed. Two do not overlap on one part, which rests in between; on different parts they do."""

    def __init__(self, site: Site, chance: random.Random) -> None:
        self._site = site
        self._chance = chance
        self._busy: set[str] = set()
        self._rested: dict[str, float] = {}
        """When the parts that something has happened to have rested, by the monotonic clock."""
        self.count: Counter[str] = Counter()
        """Events so far, by kind and part."""
        self._kinds: dict[str, tuple[float, Callable[[str], Awaitable[None]], tuple[str, ...]]] = {
            "kill a worker": (25, self._kill, tuple(site.workers)),
            "pause a worker": (20, self._pause, tuple(site.workers)),
            "cut a worker's connections": (20, self._cut, tuple(site.workers)),
            "kill the gateway": (10, self._kill, ("gateway",)),
            "pause the gateway": (8, self._pause, ("gateway",)),
            "cut the clients' connections": (12, self._cut, ("gateway",)),
        }
        if site.disk is not None:
            self._kinds["fill the disk"] = (5, self._fill, ("disk",))
        if site.postgres is not None:
            self._kinds["kill PostgreSQL"] = (5, self._kill_postgres, ("postgres",))
            self._kinds["end PostgreSQL's connections"] = (5, self._end_sessions, ("postgres",))

    async def one(self) -> None:
        """Makes one event happen and returns when it is over."""
        while not (free := self._free()):  # noqa: ASYNC110  # rests end by the clock
            await asyncio.sleep(0.05)  # all have been hit
        kind, part = self._chance.choices(list(free), list(free.values()))[0]
        attack = self._kinds[kind][1]
        self._busy.add(part)
        try:
            await attack(part)
        finally:
            self._busy.discard(part)
            self._rested[part] = time.monotonic() + self._chance.uniform(*REST_SECONDS)
        self.count[kind] += 1

    async def watch(self) -> None:
        """Never returns. Raises AssertionError with its log where a process ends that nothing happens to."""
        while True:
            for part in ("gateway", *self._site.workers):
                if part not in self._busy and not self._process(part).running:
                    raise AssertionError(f"{part} ended by itself:\n{self._process(part).log.read_text()[-4000:]}")
            await asyncio.sleep(0.2)

    def _free(self) -> dict[tuple[str, str], float]:
        """What may happen now, and to which part, by its weight."""
        now = time.monotonic()
        return {
            (kind, part): weight / len(parts)
            for kind, (weight, _, parts) in self._kinds.items()
            for part in parts
            if part not in self._busy and self._rested.get(part, 0.0) <= now
        }

    def _process(self, part: str) -> ServiceProcess:
        return self._site.gateway if part == "gateway" else self._site.workers[part]

    async def _kill(self, part: str) -> None:
        process, rest = self._process(part), self._chance.uniform(0.0, 2.0)
        await asyncio.to_thread(process.kill)
        await asyncio.sleep(rest)
        for _ in range(STARTS):
            process.start()
            try:
                await process.until(seconds=START_SECONDS)
            except AssertionError:
                if process.running:
                    raise
                log.warning("%s ended at its start; it is started again, as a supervisor does.", part)
                await asyncio.sleep(1.0)
            else:
                return
        raise AssertionError(f"{part} does not start:\n{process.log.read_text()[-4000:]}")

    async def _pause(self, part: str) -> None:
        process, seconds = self._process(part), self._chance.choice([0.1, 0.5, 1.0, 2 * LEASE_SECONDS])
        process.pause()
        await asyncio.sleep(seconds)
        process.resume()

    async def _cut(self, part: str) -> None:
        self._site.proxies[part].cut()

    async def _fill(self, _: str) -> None:
        disk, seconds = self._site.disk, self._chance.uniform(0.2, 4.0)
        if disk is None:
            return
        await asyncio.to_thread(disk.fill)
        await asyncio.sleep(seconds)
        disk.free()

    async def _kill_postgres(self, _: str) -> None:
        if self._site.postgres is not None:
            await asyncio.to_thread(self._site.postgres.kill)
            await asyncio.to_thread(self._site.postgres.start)

    async def _end_sessions(self, _: str) -> None:
        if self._site.postgres is not None:
            statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test_%'"
            await asyncio.to_thread(self._site.postgres.execute, statement)
