"""Downloading a video: to a file beside the target first, resumed where a stream broke, checked, then renamed."""

from __future__ import annotations

import hashlib
import os
import uuid
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from wan22.client_calls import TRANSIENT, Calls
from wan22.durable_files import to_its_end
from wan22.errors import DataLoss, Reason
from wan22.v1 import generation_pb2

if TYPE_CHECKING:
    from wan22.v1.generation_pb2_grpc import GenerationServiceAsyncStub  # is in the stub file only

STREAM_SECONDS = 600.0
"""Deadline of one stream: 32 MiB at 0.5 Mbit/s."""


async def download(
    calls: Calls, stub: GenerationServiceAsyncStub, name: str, video: generation_pb2.Video, target: Path
) -> None:
    """Puts a video at a path, whole or not at all. Raises DataLoss when the bytes are not the video's."""
    partial = PartialFile(target)
    try:
        await to_its_end(partial.open)
        patience = calls.patience()
        while partial.size < video.size_bytes:
            request = generation_pb2.DownloadVideoRequest(name=name, offset=partial.size)
            try:
                async with calls.stream(stub.DownloadVideo, request, deadline=STREAM_SECONDS) as chunks:
                    async for chunk in chunks:
                        await to_its_end(partial.append, chunk)
                        patience.restore()
                if partial.size < video.size_bytes:
                    raise DataLoss(f"The stream of {name} ended at byte {partial.size} of {video.size_bytes}.")
            except TRANSIENT as error:
                await patience.pause(error)
        await to_its_end(partial.commit, video.digest)
    finally:
        await to_its_end(partial.discard)


class PartialFile:
    """A file beside its target that takes the target's place when it is whole."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self.size = 0
        """Bytes so far."""

    def open(self) -> None:
        """Makes it."""
        self._file = self._path.open("xb")

    def append(self, chunk: generation_pb2.VideoChunk) -> None:
        """Adds the next piece. Raises DataLoss when it is another one or was changed on its way."""
        if chunk.offset != self.size:
            raise DataLoss(f"A piece at byte {chunk.offset} came where byte {self.size} was due.")
        crc32 = zlib.crc32(chunk.data)
        if crc32 != chunk.crc32:
            raise DataLoss(
                f"The piece at byte {chunk.offset} has CRC-32 {crc32:08x}, not {chunk.crc32:08x}: download it again.",
                reason=Reason.DIGEST_MISMATCH,
            )
        self._opened.write(chunk.data)
        self._hash.update(chunk.data)
        self.size += len(chunk.data)

    def commit(self, digest: str) -> None:
        """Renames it to the target after an fsync. Raises DataLoss when its SHA-256 is another one."""
        actual = f"sha256:{self._hash.hexdigest()}"
        if actual != digest:
            raise DataLoss(f"The video has {actual}, not {digest}: download it again.", reason=Reason.DIGEST_MISMATCH)
        self._opened.flush()
        os.fsync(self._opened.fileno())
        self._path.replace(self._target)

    def discard(self) -> None:
        """Closes it and, unless it was committed, removes it."""
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)

    @property
    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise RuntimeError("the file has not been opened")
        return self._file
