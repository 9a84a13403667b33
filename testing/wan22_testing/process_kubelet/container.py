"""One container: a process that is started, probed, restarted and ended."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wan22_testing.process_kubelet.probe import Place, Probe
from wan22_testing.process_kubelet.running import Hosted, Running, RunningHosted, RunningProcess, Stage

BACKOFF_GROWTH = 2.0
MOST_BACKOFFS = 30.0
"""A kubelet waits 10 s before it restarts a container, and at most 300 s."""


def now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Container:
    """A container of a pod. `state`, `last_state`, `ready`, `started` are what its status says; `changed` hears of it.

    `known` is its status from before its node was lost, if it ran there.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        *,
        command: Sequence[str],
        hosted: Hosted | None,
        place: Place,
        folder: Path,
        log: Path,
        restart_policy: str,
        backoff_seconds: float,
        grace_seconds: float,
        known: Mapping[str, Any] | None,
        changed: Callable[[], None],
    ) -> None:
        self.name: str = spec["name"]
        self.image: str = spec["image"]
        self.state: dict[str, Any] = {"waiting": {"reason": "ContainerCreating"}}
        self.last_state: dict[str, Any] = {}
        self.restart_count = 0
        self.ready = False
        self.started = False
        self.ended = False
        self._spec = spec
        self._command = command
        self._hosted = hosted
        self._place = place
        self._folder = folder
        self._log = log
        self._restart_policy = restart_policy
        self._backoff = backoff_seconds
        self._most_backoff = backoff_seconds * MOST_BACKOFFS
        self._grace_seconds = grace_seconds
        self._changed = changed
        self._running: Running | None = None
        self._stopping = asyncio.Event()
        if known is not None:
            self._remember(known)

    @property
    def exit_code(self) -> int | None:
        """Of the last end; None while it runs."""
        code: int | None = self.state.get("terminated", {}).get("exitCode")
        return code

    @property
    def pid(self) -> int | None:
        """Of the process, while it runs."""
        return None if self._running is None else self._running.pid

    async def run(self) -> None:
        """Runs it until it has ended for good, by the pod's restart policy."""
        while not self.ended and not self._stopping.is_set():
            await self._run_once()
            if self._stopping.is_set() or not self._is_restarted():
                break
            self.last_state = self.state
            self.state = {"waiting": {"reason": "CrashLoopBackOff", "message": f"restarts in {self._backoff:g} s"}}
            self._changed()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._backoff):
                    await self._stopping.wait()
            if self._stopping.is_set():
                self.state = self.last_state
                break
            self._backoff = min(self._backoff * BACKOFF_GROWTH, self._most_backoff)
            self.restart_count += 1
        self.ended = True
        self._changed()

    def terminate(self) -> None:
        """SIGTERM, and no restart."""
        self._stopping.set()
        if self._running is not None:
            self._running.terminate()

    def kill(self) -> None:
        """SIGKILL to it and all that it started, and no restart."""
        self._stopping.set()
        if self._running is not None:
            self._running.kill()

    def _remember(self, known: Mapping[str, Any]) -> None:
        """It ran already, on a node that was lost since."""
        lost = {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": "its node was lost"}
        ended = known["state"] if "terminated" in known["state"] else {"terminated": {**lost, "finishedAt": now()}}
        self.state = ended
        self.restart_count = known["restartCount"]
        self.ended = not self._is_restarted()
        if not self.ended:
            self.last_state, self.state = ended, {"waiting": {"reason": "ContainerCreating"}}
            self.restart_count += 1

    def _is_restarted(self) -> bool:
        return self._restart_policy == "Always" or (self._restart_policy == "OnFailure" and self.exit_code != 0)

    async def _run_once(self) -> None:
        began = now()
        running = self._running = await self._start()
        if running is None:
            self._end(began, 127, "StartError", f"{self._command[0]} is not on PATH")
            return
        if self._stopping.is_set():
            running.terminate()
        self.state = {"running": {"startedAt": began}}
        probing = asyncio.create_task(self._probe(running))
        self._changed()
        try:
            code = await running.wait()
        finally:
            self._running = None
            probing.cancel()
            with suppress(asyncio.CancelledError):
                await probing
        self._end(began, 128 - code if code < 0 else code, "Error" if code else "Completed")

    async def _start(self) -> Running | None:
        """The program at work; None where there is no such program."""
        if self._hosted is not None:
            stage = Stage(self._command, self._place.environment, self._place.address, self._place.health)
            return RunningHosted(self._hosted, stage)
        program = shutil.which(self._command[0], path=self._place.environment["PATH"])
        if program is None:
            return None
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [program, *self._command[1:]]
        return await RunningProcess.start(command, self._place.environment, self._folder, self._log)

    def _end(self, began: str, code: int, reason: str, message: str = "") -> None:
        self.ready = self.started = False
        ended = {"exitCode": code, "reason": reason, "startedAt": began, "finishedAt": now()}
        self.state = {"terminated": {**ended, **({"message": message} if message else {})}}
        self._changed()

    async def _probe(self, running: Running) -> None:
        startup = self._spec.get("startupProbe")
        if startup and not await Probe(startup, self._place).run(lambda _: None, until_success=True):
            await self._end_unwell(startup, running)
            return
        self.started = True
        readiness, liveness = self._spec.get("readinessProbe"), self._spec.get("livenessProbe")
        self.ready = readiness is None
        self._changed()
        async with asyncio.TaskGroup() as group:
            if readiness is not None:
                group.create_task(Probe(readiness, self._place).run(self._set_ready))
            if liveness is not None:
                unwell = asyncio.Event()
                group.create_task(Probe(liveness, self._place).run(lambda well: None if well else unwell.set()))
                await unwell.wait()
                await self._end_unwell(liveness, running)

    def _set_ready(self, ready: bool) -> None:  # noqa: FBT001  # a probe's verdict is its one argument
        self.ready = ready
        self._changed()

    async def _end_unwell(self, probe: Mapping[str, Any], running: Running) -> None:
        """SIGTERM, then SIGKILL; `run` decides whether it starts again. Ends with the program, which cancels it."""
        running.terminate()
        await asyncio.sleep(probe.get("terminationGracePeriodSeconds", self._grace_seconds))
        running.kill()
