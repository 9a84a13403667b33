"""Keeps one process running: started, restarted with back-off when it ends, stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from wan22.errors import FailedPrecondition, Unavailable
from wan22_cli.local.child_process import ChildProcess, ProcessSpec
from wan22_cli.local.screen import Screen

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
STABLE_SECONDS = 60.0
"""A process that lived this long is started again after the shortest pause."""


class Supervisor:
    """One slot: always the same name, ports and identity, whichever process is in it."""

    def __init__(self, spec: ProcessSpec, screen: Screen, changed: Callable[[], None]) -> None:
        self.spec = spec
        self.child: ChildProcess | None = None
        self.ready = asyncio.Event()
        """Set while the process says that it serves."""
        self._screen = screen
        self._changed = changed
        """Called after each start, when the pid is another one."""
        self._was_ready = False

    async def keep(self) -> None:
        """Runs it until cancelled. Raises FailedPrecondition when it ends before it was ready for the first time."""
        pause = FIRST_PAUSE
        while True:
            started = time.monotonic()
            self.child = await ChildProcess.start(self.spec)
            self._changed()
            why = await self._watch(self.child)
            if not self._was_ready:
                raise FailedPrecondition(why)
            if time.monotonic() - started > STABLE_SECONDS:
                pause = FIRST_PAUSE
            name = self.spec.name
            self._screen.say("restart", f"{why} It starts again in {pause:g} s.", process=name, pause_seconds=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _watch(self, child: ChildProcess) -> str:
        """Returns when the process has ended, with how."""
        try:
            await child.ready()
        except Unavailable as error:
            return error.message
        if self._was_ready:
            self._screen.say("ready_again", f"{self.spec.name} is ready again.", process=self.spec.name)
        self._was_ready = True
        self.ready.set()
        how = await child.ended()
        self.ready.clear()
        return f"{self.spec.name} ended ({how}); its log is {self.spec.log}."

    async def stop(self, grace: float) -> None:
        """Stops the process that is there; `keep` must have been cancelled."""
        if self.child is not None:
            await self.child.stop(grace)

    def kill(self) -> None:
        """Kills the process that is there."""
        if self.child is not None:
            self.child.kill()
