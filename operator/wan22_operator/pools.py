"""The loops: one a pool, woken by events, by the gateway and by itself, never twice at once."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from wan22_operator.cluster import ApiFailure
from wan22_operator.memory import Memory
from wan22_operator.metrics import Metrics
from wan22_operator.names import PoolKey

log = logging.getLogger(__name__)
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""After a round that failed, seconds; doubled each time."""
LONGEST_BREAK = 2.0
"""Seconds: after a round its loop rests for as long as that took, so that events of many pods are looked at together,
and an API server that is slow is asked less."""

Round = Callable[[PoolKey, Memory], Awaitable[bool]]
"""One round; False ends the loop."""


@dataclass(slots=True)
class _Loop:
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    memory: Memory = field(default_factory=Memory)
    task: asyncio.Task[None] | None = None


class Pools:
    """The loops of all resources of a kind; use as an async context manager. A loop begins when it is first woken."""

    def __init__(self, kind: str, run_round: Round, resync_seconds: float, metrics: Metrics) -> None:
        self._kind = kind
        self._round = run_round
        self._resync_seconds = resync_seconds
        self._metrics = metrics
        self._loops: dict[PoolKey, _Loop] = {}
        self._group = asyncio.TaskGroup()
        self.last_round = time.monotonic()
        """When a round ended last, however it did."""

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for loop in self._loops.values():
            if loop.task is not None:
                loop.task.cancel()
        await self._group.__aexit__(None, None, None)

    @property
    def keys(self) -> frozenset[PoolKey]:
        """Those that have a loop."""
        return frozenset(self._loops)

    def wake(self, key: PoolKey, *, children: bool = False) -> None:
        """Has a pool looked at now; `children` has its shared objects compared, too."""
        loop = self._loops.get(key)
        if loop is None:
            loop = self._loops[key] = _Loop()
            loop.task = self._group.create_task(self._run(key, loop), name=f"pool {key}")
        if children:
            loop.memory.children_due = True
        loop.wake.set()

    def wake_known(self, key: PoolKey) -> None:
        """Has a pool looked at now, if it has a loop."""
        if key in self._loops:
            self.wake(key)

    def wake_all(self) -> None:
        """Has every pool looked at now."""
        for key in self._loops:
            self.wake(key)

    async def _run(self, key: PoolKey, loop: _Loop) -> None:
        pause = 0.0
        while True:
            loop.wake.clear()
            began = time.monotonic()
            failed: str | None = None
            goes_on = True
            try:
                goes_on = await self._round(key, loop.memory)
            except ApiFailure as failure:
                failed = failure.reason or str(failure.code)
                log.log(logging.INFO if failure.conflict else logging.WARNING, "%s: %s", key, failure.message)
            except Exception:  # the boundary: a fault in one pool's round stops no other pool
                failed = "Fault"
                log.exception("%s: a fault of the operator", key)
            self.last_round = time.monotonic()
            if failed is not None:
                pause = min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)
                self._metrics.round_failed(failed)
                loop.memory.children_due = True
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # spreads pools
                continue
            pause, took = 0.0, self.last_round - began
            self._metrics.round_ended(self._kind, key, took)
            if not goes_on and not loop.wake.is_set():
                del self._loops[key]
                self._metrics.forget(self._kind, key)
                log.info("%s is gone.", key)
                return
            await asyncio.sleep(min(took, LONGEST_BREAK))
            with suppress(TimeoutError):
                pause_until_next = loop.memory.next_round or self._resync_seconds
                async with asyncio.timeout(pause_until_next * random.uniform(0.8, 1.0)):  # noqa: S311  # spreads
                    await loop.wake.wait()
