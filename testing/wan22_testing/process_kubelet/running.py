"""What a container runs: a process of this machine, or one of many programs that this very process hosts."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from wan22.bound_to_parent import bound_to_parent

log = logging.getLogger(__name__)
KILLED = -signal.SIGKILL


class Running(Protocol):
    """A program from its start to its end."""

    @property
    def pid(self) -> int | None:
        """Of its process, if it has one of its own, while that runs."""

    def terminate(self) -> None:
        """SIGTERM."""

    def kill(self) -> None:
        """SIGKILL, to it and all that it started."""

    async def wait(self) -> int:
        """The exit code, once it has ended; a negative one is a signal's."""


@dataclass(frozen=True)
class Stage:
    """What a hosted program is given in place of a process's surroundings."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    address: str
    """The pod's."""
    health: MutableMapping[str, bool]
    """What it says of itself, by service; as long as it says nothing, its health port is asked, as a process's is."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set in place of SIGTERM."""


Hosted = Callable[[Stage], Awaitable[int]]
"""A program that ends with its exit code; it is cancelled in place of SIGKILL."""


class RunningProcess:
    """A process with a session of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> Self:
        """Starts it in a folder; its output goes to the log. It ends with this thread at the latest."""
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *bound_to_parent(command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                env=dict(environment),
                start_new_session=True,
            )
        return cls(process)

    @property
    def pid(self) -> int | None:
        """While it runs."""
        return self._process.pid if self._process.returncode is None else None

    def terminate(self) -> None:
        """SIGTERM, unless it has ended."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to its session."""
        with suppress(ProcessLookupError, PermissionError):  # all of it has ended
            os.killpg(self._process.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """As all processes of a container end with its first one, what it left is killed."""
        try:
            return await self._process.wait()
        finally:
            self.kill()


class RunningHosted:
    """A task of this process's event loop."""

    pid: int | None = None

    def __init__(self, program: Hosted, stage: Stage) -> None:
        self._stage = stage
        self._task: asyncio.Future[int] = asyncio.ensure_future(program(stage))

    def terminate(self) -> None:
        """It is asked to end."""
        self._stage.stopping.set()

    def kill(self) -> None:
        """It is cancelled."""
        self._task.cancel()

    async def wait(self) -> int:
        """Its exit code; 1 where it raises, as of a process."""
        try:
            await asyncio.wait([self._task])
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._stage.health.clear()
        if self._task.cancelled():
            return KILLED
        if (error := self._task.exception()) is not None:
            log.error("A hosted program ended by an error.", exc_info=error)
            return 1
        return self._task.result()
