"""One variant of `wan22 up`: its model, its pool, its workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc

from wan22.channels import open_channel
from wan22.v1 import inference_pb2
from wan22.v1.inference_pb2_grpc import InferenceServiceStub
from wan22_cli.local.models import Models
from wan22_cli.local.plan import Plan
from wan22_cli.local.pools import Pools
from wan22_cli.local.screen import Screen
from wan22_cli.local.supervisor import Supervisor

if TYPE_CHECKING:
    from wan22.v1.inference_pb2_grpc import InferenceServiceAsyncStub  # is in the stub file only

LOOK_SECONDS = 1.0
"""How often a worker that loads is asked how far it is."""


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
        version = await models.find(self.variant) or await models.make(self.variant)
        if version is None:
            self._settle("waits for its model")
            version = await models.wait_for(self.variant)
        await pools.declare(self.variant, version)
        for index in range(self._plan.workers):
            worker = Supervisor(self._plan.worker(self.variant, index, version), self._screen, self._changed)
            self.workers.append(worker)
            tasks.create_task(worker.keep())
        for worker in self.workers:
            await self._loaded(worker)
        count = "1 worker" if len(self.workers) == 1 else f"{len(self.workers)} workers"
        self._settle(f"{count} ready")
        self._screen.say("variant_ready", f"{self.variant}: {self.state}.", variant=self.variant)

    def _settle(self, state: str) -> None:
        self.state = state
        self.settled.set()

    async def _loaded(self, worker: Supervisor) -> None:
        """Returns once a worker is ready; says what is wrong with one whose model cannot be loaded."""
        async with open_channel(worker.spec.target) as channel:
            stub: InferenceServiceAsyncStub = InferenceServiceStub(channel)
            while not worker.ready.is_set():
                said = await _ask(stub)
                if said is not None and said.state == inference_pb2.Worker.BROKEN and not self.settled.is_set():
                    text = f"{worker.spec.name} cannot load its model: {said.error.message}"
                    self._screen.say("worker_broken", text, process=worker.spec.name)
                    self._settle("broken: its model cannot be loaded")
                try:
                    async with asyncio.timeout(LOOK_SECONDS):
                        await worker.ready.wait()
                except TimeoutError:
                    continue


async def _ask(stub: InferenceServiceAsyncStub) -> inference_pb2.Worker | None:
    try:
        return await stub.GetWorker(inference_pb2.GetWorkerRequest(), timeout=LOOK_SECONDS)
    except grpc.aio.AioRpcError:  # it is not that far yet
        return None
