"""The folder of `wan22 up`: its state, one `up` at a time, and what that one says about itself."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Self

from wan22 import settings
from wan22.errors import FailedPrecondition, Reason


@dataclass(frozen=True)
class RunningProcess:
    """A process that `up` started."""

    name: str
    pid: int
    port: int
    health_port: int


@dataclass(frozen=True)
class Running:
    """What up.json says: who runs here and where it answers."""

    pid: int
    endpoint: str
    registry: str
    variants: tuple[str, ...]
    processes: tuple[RunningProcess, ...]


@dataclass(frozen=True)
class Home:
    """The folder; a part of it is made by who needs it."""

    path: Path

    @classmethod
    def from_environment(cls) -> Self:
        """WAN22_HOME, by default ~/.wan22."""
        return cls(settings.home())

    @property
    def gateway(self) -> Path:
        """The gateway's store."""
        return self.path / "gateway"

    @property
    def registry(self) -> Path:
        """The registry's models."""
        return self.path / "registry"

    @property
    def packing(self) -> Path:
        """What imports have packed and not yet pushed."""
        return self.path / "packing"

    @property
    def made_models(self) -> Path:
        """Which of the registry's models `up` has made, and of what."""
        return self.path / "made-models.json"

    @property
    def cache(self) -> Path:
        """Blobs that workers and exports have pulled."""
        return self.path / "cache"

    @property
    def videos(self) -> Path:
        """Finished videos and uploaded media."""
        return self.path / "videos"

    @property
    def logs(self) -> Path:
        """One log a process."""
        return self.path / "logs"

    @property
    def scratch(self) -> Path:
        """What workers hold until it is released."""
        return self.path / "scratch"

    @property
    def _up(self) -> Path:
        return self.path / "up.json"

    @property
    def _lock(self) -> Path:
        return self.path / "up.lock"

    @contextmanager
    def own(self) -> Iterator[None]:
        """Holds the folder for one `up`. Raises FailedPrecondition naming the process that holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with self._lock.open("a+") as lock:  # "a+": the holder's pid must not be cut before the lock is ours
            if not _take(lock):
                lock.seek(0)
                holder = lock.read().strip() or "unknown"
                raise FailedPrecondition(
                    f"{self.path} is in use by `wan22 up`, process id {holder}: stop that one, or use another folder "
                    "by --home.",
                    reason=Reason.STORE_IN_USE,
                )
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            try:
                yield
            finally:
                self._up.unlink(missing_ok=True)

    def describe(self, running: Running) -> None:
        """Writes up.json, whole or not at all."""
        partial = self._up.with_suffix(".json.part")
        partial.write_text(json.dumps(asdict(running), indent=2) + "\n")
        partial.replace(self._up)

    def running(self) -> Running | None:
        """Reads up.json; None when no `up` runs here."""
        try:
            with self._lock.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # held: an `up` runs
        except FileNotFoundError:
            return None
        else:
            return None
        try:
            said = json.loads(self._up.read_text())
        except FileNotFoundError:  # it has just begun
            return None
        processes = tuple(RunningProcess(**process) for process in said.pop("processes"))
        return Running(**{**said, "variants": tuple(said["variants"])}, processes=processes)


def _take(lock: IO[str]) -> bool:
    """Locks for this process; another command that just looks whether an `up` runs is waited for."""
    for _ in range(10):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False
