"""A file of weights that is packed on its way into a registry."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class WeightsFile:
    """A safetensors file as it was found; it is read once, while it is packed."""

    path: Path
    path_in_model: str
    size: int
    """Bytes."""
    identity: str
    """64 hex digits that tell the file as it is now from any other: of its place on the disk, size and last change."""

    @classmethod
    def find(cls, path: Path, path_in_model: str) -> Self:
        """The file and where it belongs in a model. Raises FileNotFoundError."""
        found = path.stat()
        facts = (path.resolve(), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        return cls(path, path_in_model, found.st_size, hashlib.sha256(repr(facts).encode()).hexdigest())

    def has_changed(self) -> bool:
        """Whether it is no more what was found."""
        return WeightsFile.find(self.path, self.path_in_model) != self
