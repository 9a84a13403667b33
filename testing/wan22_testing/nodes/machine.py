"""A machine of the cluster: processes in namespaces of their own, which all end, with their mounts, when one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from wan22.errors import Unavailable
from wan22_testing.nodes.network import inside_of

END_SECONDS = 30.0


class Machine:
    """A Python module as process 1 of a process and a mount namespace, in a named network namespace.

    A kill of process 1 is a crash of the machine: the kernel kills all it has started, containers too, and no mount
    outlives them. It outlives the process that started it.
    """

    def __init__(self, folder: Path, network: str, module: str) -> None:
        self._folder = folder
        self._network = network
        self._module = module
        self._file = folder / "pid"

    @property
    def log(self) -> Path:
        """What its module printed."""
        return self._folder / "machine.log"

    def start(self, *arguments: str, listening: Sequence[int] = ()) -> None:
        """Starts it; `listening` are file descriptors that it inherits."""
        self._folder.mkdir(parents=True, exist_ok=True)
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command = [*inside_of(self._network), *namespaces, sys.executable, "-m", self._module, *arguments]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
                pass_fds=listening,
            )
        self._file.write_text(str(process.pid))
        process.returncode = 0  # it goes on: not to be waited for, nor complained about

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._pid() is not None

    def crash(self) -> None:
        """Kills all of it at once, without a word."""
        if (pid := self._pid()) is None:
            return
        first = self._first(pid)
        os.kill(pid, signal.SIGKILL)  # unshare, which takes process 1 along (--kill-child)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
        deadline = time.monotonic() + END_SECONDS
        while first is not None and _lives(first):
            if time.monotonic() > deadline:
                raise Unavailable(f"Process {first}, the first of {self._folder.name}, does not end.")
            time.sleep(0.05)
        self._file.unlink(missing_ok=True)

    def inside(self) -> tuple[str, ...]:
        """What a command begins with that runs on it. Raises Unavailable if it does not run."""
        pid = self._pid()
        first = None if pid is None else self._first(pid)
        if first is None:
            raise Unavailable(f"{self._folder.name} does not run. The end of its log:\n{self.end_of_log()}")
        return ("nsenter", f"--target={first}", "--mount", "--pid", "--net", "--")

    def end_of_log(self) -> str:
        """For errors."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else "(none)"

    def _pid(self) -> int | None:
        try:
            pid = int(self._file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_text()
        except (OSError, ValueError):
            return None
        if not command:  # it has ended, or is just becoming another program
            return pid if _lives(pid) else None
        return pid if self._module in command.split("\0") else None  # another's since

    def _first(self, pid: int) -> int | None:
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except FileNotFoundError:
            return None
        return int(children[0]) if children else None


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
