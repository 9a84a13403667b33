"""Runs the `wan22` command as a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wan22_testing.service_process import environment_of

LIMIT_SECONDS = 120.0


@dataclass(frozen=True)
class Result:
    """How a command ended and what it printed."""

    exit_code: int
    out: str
    err: str

    def json(self) -> Any:
        """What one JSON object on standard output says."""
        return json.loads(self.out)

    def json_lines(self) -> list[Any]:
        """What each line of standard output says."""
        return [json.loads(line) for line in self.out.splitlines()]


class Wan22Command:
    """`wan22` in a folder; of WAN22_ variables it sees only those given here."""

    def __init__(self, folder: Path, code: Path | None = None, **environment: str) -> None:
        """`code` is a folder of another release's packages, rather than those that run here."""
        self.folder = folder
        kept = {name: value for name, value in environment_of(code).items() if not name.startswith("WAN22_")}
        self._environment = kept | {"WAN22_HOME": str(folder / "home"), "COLUMNS": "200"} | environment

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Starts a command and leaves it to the caller."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "wan22_cli",
            *arguments,
            cwd=self.folder,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, *arguments: str) -> Result:
        """Runs a command to its end."""
        return await self.finish(await self.start(*arguments))

    async def finish(self, process: asyncio.subprocess.Process) -> Result:
        """Waits for a started command's end; kills it when that does not come."""
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            raise
        return Result(await process.wait(), out.decode(), err.decode())
