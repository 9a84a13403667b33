"""A file on its way into a registry."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from wan22.digests import digest_file
from wan22.v1 import model_pb2


@dataclass(frozen=True)
class LocalFile:
    """A file to push."""

    path: Path
    file: model_pb2.File
    """What the version says of it."""

    @property
    def blob(self) -> model_pb2.Blob:
        """What the registry keeps of it."""
        return model_pb2.Blob(digest=self.file.digest, size_bytes=self.file.size_bytes)

    @classmethod
    async def describe(cls, path: Path, path_in_model: str) -> Self:
        """A file and where it belongs in a model, hashed in a thread."""
        digest = str(await digest_file(path))
        size = (await asyncio.to_thread(path.stat)).st_size
        return cls(path, model_pb2.File(path=path_in_model, digest=digest, size_bytes=size))
