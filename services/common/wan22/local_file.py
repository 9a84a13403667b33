"""A file on its way into a registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from wan22.channels import CHUNK_BYTES
from wan22.digests import digest_file
from wan22.errors import DataLoss, InvalidRequest
from wan22.v1 import model_pb2


@dataclass(frozen=True)
class LocalFile:
    """A file to push."""

    path: Path
    file: model_pb2.File
    """What the version says of it."""

    async def read(self, offset: int) -> AsyncGenerator[bytes, None]:
        """Its bytes from an offset."""
        with await asyncio.to_thread(self.path.open, "rb") as file:
            await asyncio.to_thread(file.seek, offset)
            while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield data

    def damaged(self, error: DataLoss) -> InvalidRequest:
        """It was hashed before it was pushed."""
        return InvalidRequest(f"{self.path} has changed while it was pushed: {error.message}")

    def __str__(self) -> str:
        return str(self.path)

    @classmethod
    async def describe(cls, path: Path, path_in_model: str) -> Self:
        """A file and where it belongs in a model, hashed in a thread."""
        digest = str(await digest_file(path))
        size = (await asyncio.to_thread(path.stat)).st_size
        return cls(path, model_pb2.File(path=path_in_model, digest=digest, size_bytes=size))
