"""All processes of `wan22 up`: started in order, kept running, stopped in the reverse order."""

from __future__ import annotations

import asyncio
import os

from wan22.errors import FailedPrecondition, Wan22Error
from wan22.variants import VARIANTS
from wan22_cli.home import Running, RunningProcess
from wan22_cli.local.models import Models
from wan22_cli.local.plan import DRAIN_SECONDS, Plan
from wan22_cli.local.pools import Pools
from wan22_cli.local.screen import Screen
from wan22_cli.local.served_variant import ServedVariant
from wan22_cli.local.supervisor import Supervisor

START_SECONDS = 60.0
"""How long registry and gateway may take to serve; both do within seconds."""
STOP_SECONDS = 10.0
"""How long a process may take to stop beyond what it waits for by design."""


class Stack:
    """Registry, gateway and workers of one machine."""

    def __init__(self, plan: Plan, screen: Screen) -> None:
        self._plan = plan
        self._screen = screen
        self._registry = Supervisor(plan.registry(), screen, self._describe)
        self._gateway = Supervisor(plan.gateway(), screen, self._describe)
        self._variants = [ServedVariant(variant, plan, screen, self._describe) for variant in plan.variants]

    async def run(self) -> None:
        """Runs until cancelled. Raises FailedPrecondition when a process cannot be started."""
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._run(tasks)
        except* Wan22Error as group:
            raise group.exceptions[0] from None

    async def _run(self, tasks: asyncio.TaskGroup) -> None:
        for supervisor in (self._registry, self._gateway):
            tasks.create_task(supervisor.keep())
            await self._ready(supervisor)
        async with Models(self._plan, self._screen) as models, Pools(self._plan) as pools:
            await models.begin_notes()
            for variant in await pools.retire(self._plan.variants):
                text = f"{variant} has unfinished generations from before: they go on at `wan22 up {variant}`."
                self._screen.say("unfinished", text, variant=variant)
            for served in self._variants:
                tasks.create_task(served.serve(models, pools, tasks))
            for served in self._variants:
                await served.settled.wait()
            self._say_ready()
            await asyncio.Future()  # keeps the connections open for a variant that waits for its model

    async def _ready(self, supervisor: Supervisor) -> None:
        name = supervisor.spec.name
        try:
            async with asyncio.timeout(START_SECONDS):
                await supervisor.ready.wait()
        except TimeoutError:
            raise FailedPrecondition(
                f"The {name} does not serve after {START_SECONDS:g} s: {supervisor.spec.log} may say why."
            ) from None
        self._screen.say("process_ready", f"The {name} answers at {supervisor.spec.target}.", process=name)

    def _say_ready(self) -> None:
        home, example = self._plan.home.path, self._plan.variants[0]
        image = " --image first.png" if example.startswith("i2v") else ""
        http = self._plan.http_address
        lines = ["", f"wan22 is up at {self._plan.endpoint}, HTTP at {http}; state and logs are in {home}."]
        lines += [f"  {served.variant}: {served.state}" for served in self._variants]
        known = "A red circle moves right" if VARIANTS[example].small else "A cat on a surfboard"
        lines += ["", f'Next:   wan22 generate "{known}" -o video.mp4 --variant {example}{image}']
        lines += ["Ctrl-C stops everything; what is queued is kept."]
        states = {served.variant: served.state for served in self._variants}
        facts = {"endpoint": self._plan.endpoint, "http": http, "home": str(home), "variants": states}
        self._screen.say("ready", "\n".join(lines), **facts)

    def _supervisors(self) -> list[Supervisor]:
        """In the order in which they stop."""
        return [*(worker for served in self._variants for worker in served.workers), self._gateway, self._registry]

    def _describe(self) -> None:
        processes = [
            RunningProcess(s.spec.name, s.child.pid, s.spec.port, s.spec.health_port)
            for s in self._supervisors()
            if s.child is not None
        ]
        plan = self._plan
        plan.home.describe(
            Running(os.getpid(), plan.endpoint, plan.registry_target, tuple(plan.variants), tuple(processes))
        )

    async def stop(self) -> None:
        """Stops workers, then the gateway, then the registry; `run` must have been cancelled."""
        workers = [worker for served in self._variants for worker in served.workers]
        await asyncio.gather(*(worker.stop(DRAIN_SECONDS + STOP_SECONDS) for worker in workers))
        await self._gateway.stop(STOP_SECONDS)
        await self._registry.stop(STOP_SECONDS)

    def kill(self) -> None:
        """Kills everything at once."""
        for supervisor in self._supervisors():
            supervisor.kill()
