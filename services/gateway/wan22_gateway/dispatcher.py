"""The dispatcher: claims work for idle workers, keeps its leases, and takes over what nobody owns any more."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from wan22.errors import Wan22Error
from wan22_gateway.attempt import AttemptRunner
from wan22_gateway.lifecycle import Fence
from wan22_gateway.store import claims
from wan22_gateway.store.claims import Claim
from wan22_gateway.store.database import Database, Transaction

log = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
"""How long a change that nobody announced (a lapsed drain, say) can go unnoticed."""
BUSY_SHARE, MOST_REST = 100.0, 0.05
"""A look that finds nothing is followed by a rest of so many times as long as it computed, since requests come by the
hundred a second; and of at most so many seconds, for which a worker may be idle."""
EARLY_SHARE = 0.05
"""Of a lease, how long before its end its owner lets go: so much later a busy loop may come to it."""
PAUSE_SECONDS = 1.0
"""How long claiming and taking over rest after the store has failed them; what runs goes on as long as its lease."""


@dataclass
class _Owned:
    """An attempt that this process speaks for."""

    task: asyncio.Task[None]
    until: float
    """When it is let go of unless its lease is renewed, by this process's own monotonic clock, which counts pauses too:
    before the lease lapses in the store."""


class Dispatcher:
    """Runs attempts as `owner`. Stopping it stops no attempt: the next owner re-attaches."""

    def __init__(
        self,
        database: Database,
        owner: str,
        runner: Callable[[Claim], AttemptRunner],
        *,
        lease_seconds: float,
        resume_wait: float,
    ) -> None:
        self._database = database
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._resume_wait = resume_wait
        self._runner = runner
        self._owned: dict[Fence, _Owned] = {}

    async def run(self) -> None:
        """Works until cancelled. Where the store proves that no earlier owner lives, everything is taken at first."""
        self._owned.clear()  # of an earlier run nobody attends to anything any more
        async with asyncio.TaskGroup() as group:
            await self._take_over(group, everything=self._database.alone, own=True)
            group.create_task(self._claim_forever(group))
            group.create_task(self._renew_forever())
            group.create_task(self._take_over_forever(group))

    async def _claim_forever(self, group: asyncio.TaskGroup) -> None:
        with self._database.listen("queue") as wake:
            while True:
                wake.clear()
                try:
                    rest = min(MOST_REST, BUSY_SHARE * await self._claim_all(group))
                except Wan22Error as error:
                    log.warning("Nothing is claimed for %g s: %s", PAUSE_SECONDS, error.message)
                    await asyncio.sleep(PAUSE_SECONDS)
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await asyncio.sleep(rest)
                        await wake.wait()

    async def _claim_all(self, group: asyncio.TaskGroup) -> float:
        """Claims what there is, and fails what is overdue; returns for how many seconds the last look computed."""
        while True:
            found, took = await self._database.read(_look, self._resume_wait)
            if not found:
                return took
            began = time.monotonic()
            terms = (self._owner, self._lease_seconds, self._resume_wait)
            claim = await self._database.write(claims.claim_next, *terms)
            if claim is None:  # another process was first, or is writing about it; or it was overdue
                return 0.0
            log.info("Attempt %d of generations/%s is %s's.", claim.fence.attempt, claim.fence.generation, claim.worker)
            self._start(group, claim, began)

    async def _renew_forever(self) -> None:
        """Renews three times a lease; what was not renewed in time (after a pause, without a store) is let go."""
        while True:
            await asyncio.sleep(min(self._lease_seconds / 3, self._left()))
            began, mine, left = time.monotonic(), list(self._owned), self._left()
            try:
                async with asyncio.timeout(left):
                    kept = await self._renew(mine)
                for fence in set(mine) - kept:
                    await self._let_go(fence)
                for fence in kept & self._owned.keys():
                    self._owned[fence].until = self._end_of_lease(began)
            except (Wan22Error, TimeoutError) as error:
                log.warning("Leases are not renewed: %s", error)
            now = time.monotonic()
            for fence in [fence for fence, owned in self._owned.items() if owned.until <= now]:
                await self._let_go(fence)

    def _left(self) -> float:
        """Seconds until the first of the leases is over for us."""
        ends = [owned.until - time.monotonic() for owned in self._owned.values()]
        return max(0.0, min(ends, default=self._lease_seconds))

    async def _renew(self, fences: list[Fence]) -> set[Fence]:
        if not fences:
            return set()
        return await self._database.write_own(claims.renew, self._owner, fences, self._lease_seconds)

    async def _take_over_forever(self, group: asyncio.TaskGroup) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            try:
                await self._take_over(group)
            except Wan22Error as error:
                log.warning("Nothing is taken over: %s", error.message)

    async def _take_over(self, group: asyncio.TaskGroup, *, everything: bool = False, own: bool = False) -> None:
        began = time.monotonic()
        taken = await self._database.write(
            claims.take_over, self._owner, self._lease_seconds, everything=everything, own=own
        )
        for claim in taken:
            log.info("Took over attempt %d of generations/%s.", claim.fence.attempt, claim.fence.generation)
            self._start(group, claim, began)

    def _start(self, group: asyncio.TaskGroup, claim: Claim, began: float) -> None:
        self._owned[claim.fence] = _Owned(group.create_task(self._run(claim)), self._end_of_lease(began))

    def _end_of_lease(self, asked: float) -> float:
        """When one that was asked for then is over for us; the store counts its whole length, and from later on."""
        return asked + (1.0 - EARLY_SHARE) * self._lease_seconds

    async def _run(self, claim: Claim) -> None:
        began = time.monotonic()
        try:
            await self._runner(claim).run()
        except Wan22Error as error:  # the lapsed lease brings it back
            log.warning("generations/%s is left alone: %s", claim.fence.generation, error.message)
        except Exception:  # a fault of ours must not take the other attempts along
            log.exception("Attempt %d of generations/%s", claim.fence.attempt, claim.fence.generation)
        finally:
            self._owned.pop(claim.fence, None)
        log.info("generations/%s: attended for %.1f s.", claim.fence.generation, time.monotonic() - began)

    async def _let_go(self, fence: Fence) -> None:
        owned = self._owned.pop(fence, None)
        if owned is not None:
            log.warning("The lease of generations/%s was lost: letting go.", fence.generation)
            owned.task.cancel()
            with suppress(asyncio.CancelledError):
                await owned.task


def _look(tx: Transaction, resume_wait: float) -> tuple[bool, float]:
    """Whether there is anything to do, and for how many seconds seeing that computed."""
    began = time.thread_time()
    return claims.anything_to_do(tx, resume_wait), time.thread_time() - began
