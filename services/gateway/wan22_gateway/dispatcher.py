"""The dispatcher: claims work for idle workers, keeps its leases, and takes over what nobody owns any more."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from wan22_gateway.attempt import AttemptRunner
from wan22_gateway.lifecycle import Fence
from wan22_gateway.store import claims
from wan22_gateway.store.claims import Claim
from wan22_gateway.store.database import Database

log = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
"""How long a change that nobody announced (a lapsed drain, say) can go unnoticed."""


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
        self._running: dict[Fence, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Works until cancelled. The store's lock proves that no earlier owner lives: everything is taken at first."""
        async with asyncio.TaskGroup() as group:
            await self._take_over(group, everything=True)
            group.create_task(self._claim_forever(group))
            group.create_task(self._own_forever(group))

    async def _claim_forever(self, group: asyncio.TaskGroup) -> None:
        with self._database.listen("queue") as wake:
            while True:
                wake.clear()
                if await self._database.read(claims.overdue):
                    await self._database.write(claims.fail_overdue)
                while await self._database.read(claims.next_pair, self._resume_wait) is not None:
                    terms = (self._owner, self._lease_seconds, self._resume_wait)
                    claim = await self._database.write(claims.claim_next, *terms)
                    if claim is not None:
                        self._start(group, claim)
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await wake.wait()

    async def _own_forever(self, group: asyncio.TaskGroup) -> None:
        """Renews three times a lease; what was not renewed in time (after a pause) is let go and taken anew."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            mine = list(self._running)
            if mine:
                kept = await self._database.write_own(claims.renew, self._owner, mine, self._lease_seconds)
                for fence in set(mine) - kept:
                    await self._let_go(fence)
            await self._take_over(group)

    async def _take_over(self, group: asyncio.TaskGroup, *, everything: bool = False) -> None:
        taken = await self._database.write(claims.take_over, self._owner, self._lease_seconds, everything=everything)
        for claim in taken:
            log.info("Took over attempt %d of generations/%s.", claim.fence.attempt, claim.fence.generation)
            self._start(group, claim)

    def _start(self, group: asyncio.TaskGroup, claim: Claim) -> None:
        self._running[claim.fence] = group.create_task(self._run(claim))

    async def _run(self, claim: Claim) -> None:
        began = time.monotonic()
        try:
            await self._runner(claim).run()
        except Exception:  # a fault of ours must not take the other attempts along; the lapsed lease brings it back
            log.exception("Attempt %d of generations/%s", claim.fence.attempt, claim.fence.generation)
        finally:
            self._running.pop(claim.fence, None)
        log.info("generations/%s: attended for %.1f s.", claim.fence.generation, time.monotonic() - began)

    async def _let_go(self, fence: Fence) -> None:
        task = self._running.pop(fence, None)
        if task is not None:
            log.warning("The lease of generations/%s was lost: letting go.", fence.generation)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
