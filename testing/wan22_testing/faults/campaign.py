"""Runs a campaign: load, one random event after another, and then the verdict."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from wan22_testing.faults.attacks import Attacks
from wan22_testing.faults.load import Load
from wan22_testing.faults.site import Site
from wan22_testing.faults.verdict import Verdict, judge

log = logging.getLogger(__name__)
WORKERS = 4
AT_ONCE = 6
"""Events that go on at the same time."""
PAUSE_SECONDS = (0.0, 0.5)
"""Between the end of one event and the next, drawn between these."""


@dataclass(frozen=True)
class Found:
    """What a campaign has found."""

    events: int
    by_kind: Counter[str]
    accepted: int
    seconds: float
    verdict: Verdict


async def run(folder: Path, *, events: int, seed: int, on_postgres: bool, seconds: float | None = None) -> Found:
    """Makes so many events happen in a site under an empty folder, or fewer when the time for them is over.

    The time begins when the site is there.
    """
    began = time.monotonic()
    async with Site(folder, WORKERS, on_postgres=on_postgres) as site:
        load, attacks = Load(site, seed), Attacks(site, random.Random(seed))  # noqa: S311  # nobody is to be kept out
        pauses = random.Random(seed + 1)  # noqa: S311

        async def attack() -> None:
            while left() and (seconds is None or time.monotonic() - ready < seconds):
                started.append(None)
                await attacks.one()
                if len(started) % 50 == 0:
                    log.info("%d events, %d accepted.", len(started), len(load.accepted.names))
                await asyncio.sleep(pauses.uniform(*PAUSE_SECONDS))

        def left() -> bool:
            return len(started) < events

        started: list[None] = []
        ready = time.monotonic()
        async with asyncio.TaskGroup() as group:
            loading = group.create_task(load.run())
            watching = group.create_task(attacks.watch())
            async with asyncio.TaskGroup() as attackers:
                for _ in range(AT_ONCE):
                    attackers.create_task(attack())
            load.stop()
            await loading
            watching.cancel()
        verdict = await judge(site, load.accepted)
    took = time.monotonic() - began
    return Found(attacks.count.total(), attacks.count, len(load.accepted.names), took, verdict)
