"""Where a video or a checkpoint gathers while its chunks arrive."""

from __future__ import annotations

import asyncio
import zlib
from pathlib import Path

from wan22.digests import digest_file
from wan22.errors import Unavailable
from wan22.v1 import generation_pb2, inference_pb2

Chunk = generation_pb2.VideoChunk | inference_pb2.CheckpointChunk
Whole = generation_pb2.Video | inference_pb2.Checkpoint


class Spool:
    """A growing file of one attempt; a broken stream of a video goes on where it stopped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.path.unlink(missing_ok=True)

    async def write(self, chunk: Chunk) -> None:
        """Appends a chunk. Raises Unavailable, to have it sent again, when it is damaged or out of place; OSError."""
        if chunk.offset != self.size or zlib.crc32(chunk.data) != chunk.crc32:
            raise Unavailable(f"The chunk at {chunk.offset} is damaged or not the next one, which is at {self.size}.")
        await asyncio.to_thread(self._append, chunk.data)
        self.size += len(chunk.data)

    async def check(self, whole: Whole) -> None:
        """Compares the whole with its size and digest. Raises Unavailable and empties itself when they differ."""
        digest = str(await digest_file(self.path))
        if (self.size, digest) != (whole.size_bytes, whole.digest):
            text = f"It arrived with {self.size} bytes and {digest}, not {whole.size_bytes} and {whole.digest}."
            self.remove()
            raise Unavailable(text)

    def remove(self) -> None:
        """Deletes the file."""
        self.path.unlink(missing_ok=True)
        self.size = 0

    def _append(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.truncate(self.size)  # of an append that failed half-way
            file.write(data)
