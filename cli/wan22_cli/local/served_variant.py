"""One variant of `wan22 up`: its model, its pool, its workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from wan22.v1.inference_pb2 import Worker
from wan22_cli.local.models import Models
from wan22_cli.local.plan import Plan
from wan22_cli.local.pools import Pools
from wan22_cli.local.screen import Screen
from wan22_cli.local.supervisor import Supervisor

LOOK_SECONDS = 0.5
"""How often the gateway is asked what it knows of workers that load."""


class ServedVariant:
    """Brings a variant up and knows how far that is."""

    def __init__(self, variant: str, plan: Plan, screen: Screen, changed: Callable[[], None]) -> None:
        self.variant = variant
        self.workers: list[Supervisor] = []
        self.settled = asyncio.Event()
        """Set when its workers are ready, or when something is in the way that a person has to remove."""
        self.state = "starting"
        """In a few words, for the summary."""
        self._plan = plan
        self._screen = screen
        self._changed = changed

    async def serve(self, models: Models, pools: Pools, tasks: asyncio.TaskGroup) -> None:
        """Returns once its workers are ready; they are kept running in `tasks`."""
        version = await models.find_or_make(self.variant)
        if version is None:
            self._settle("waits for its model")
            version = await models.wait_for(self.variant)
        needed = await pools.unfinished(self.variant)
        if needed not in {None, version} and await models.has(needed):
            text = f"serving {needed} for generations from before; {version} at a start without any."
            self._screen.say("earlier_version", f"{self.variant}: {text}", variant=self.variant)
            version = needed
        await pools.declare(self.variant, version)
        for index in range(self._plan.workers):
            worker = Supervisor(self._plan.worker(self.variant, index, version), self._screen, self._changed)
            self.workers.append(worker)
            tasks.create_task(worker.keep())
        await self._ready(pools)
        count = "1 worker" if len(self.workers) == 1 else f"{len(self.workers)} workers"
        self._settle(f"{count} ready")
        self._screen.say("variant_ready", f"{self.variant}: {self.state}.", variant=self.variant)

    def _settle(self, state: str) -> None:
        self.state = state
        self.settled.set()

    async def _ready(self, pools: Pools) -> None:
        """Returns once the gateway has seen that each worker is ready; says what is wrong with one that is broken."""
        while True:
            known = await pools.workers(self.variant)
            broken = next((worker for worker in known if worker.state == Worker.BROKEN), None)
            if broken is not None and not self.settled.is_set():
                text = f"{broken.name} cannot load its model: {broken.error}"
                self._screen.say("worker_broken", text, variant=self.variant)
                self._settle("broken: its model cannot be loaded")
            able = [worker for worker in known if worker.alive and worker.state in {Worker.IDLE, Worker.BUSY}]
            if len(able) >= len(self.workers) and all(worker.ready.is_set() for worker in self.workers):
                return
            await asyncio.sleep(LOOK_SECONDS)
