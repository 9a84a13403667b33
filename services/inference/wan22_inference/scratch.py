"""Where results lie until they are released."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import tempfile
from pathlib import Path
from typing import Self

from wan22.errors import FailedPrecondition, Reason


class Scratch:
    """A folder that one process owns: use as a context manager; what an earlier process left in it goes at the start.

    Raises FailedPrecondition (STORE_IN_USE) while another process has it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def __enter__(self) -> Self:
        self._root.mkdir(parents=True, exist_ok=True)
        self._lock = (self._root / "lock").open("a")  # held until __exit__
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise FailedPrecondition(
                f"{self._root} is in use by another worker: give each worker a name of its own.",
                reason=Reason.STORE_IN_USE,
            ) from None
        for leftover in self._root.iterdir():
            if leftover.is_dir():
                shutil.rmtree(leftover)
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def make_folder(self) -> Path:
        """A new empty folder."""
        return Path(tempfile.mkdtemp(dir=self._root))

    async def remove(self, folder: Path) -> None:
        """Removes a folder and all in it; one that is gone already is fine."""
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
