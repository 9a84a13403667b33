"""A disk of its own for a folder, small enough to be filled at will."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self


class SmallDisk:
    """A tmpfs that is mounted while the context lasts. Raises PermissionError where mounting is not allowed."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.folder = folder
        self._size_bytes = size_bytes

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={self._size_bytes}", "tmpfs", str(self.folder)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise PermissionError(f"A tmpfs cannot be mounted at {self.folder}: {done.stderr.strip()}")
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def fill(self) -> None:
        """Takes all that is free, also while others write."""
        with (self.folder / "filler").open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                with suppress(OSError):  # no space is left, which is what is wanted
                    while file.write(bytes(size)):
                        pass

    def free(self) -> None:
        """Gives it back."""
        (self.folder / "filler").unlink(missing_ok=True)
