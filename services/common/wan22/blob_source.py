"""Where the bytes of a blob come from that a registry is to have."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Protocol

from wan22.channels import CHUNK_BYTES
from wan22.errors import DataLoss, Wan22Error
from wan22.v1 import model_pb2


class BlobSource(Protocol):
    """A file of a version-to-be; `str` names it for people."""

    @property
    def file(self) -> model_pb2.File:
        """What the version will say of it."""

    def read(self, offset: int) -> AsyncGenerator[bytes, None]:
        """Its bytes from an offset, in pieces of any size."""

    def damaged(self, error: DataLoss) -> Wan22Error:
        """The error to raise when its bytes are not those of its digest."""


def blob_of(source: BlobSource) -> model_pb2.Blob:
    """What a registry keeps of it."""
    return model_pb2.Blob(digest=source.file.digest, size_bytes=source.file.size_bytes)


class BlobMessages:
    """The messages of one push: the blob's name, then its bytes from an offset.

    gRPC ends a call whose messages cannot be read with an error of its own: `failure` is the true one.
    """

    def __init__(self, source: BlobSource, offset: int, sent: Callable[[int], object]) -> None:
        self._source = source
        self._offset = offset
        self._sent = sent
        self.failure: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[model_pb2.PushBlobRequest]:
        """Yields each message; `sent` hears how far the bytes have gone."""
        offset = self._offset
        yield model_pb2.PushBlobRequest(blob=blob_of(self._source), offset=offset)
        try:
            async with aclosing(self._source.read(offset)) as pieces:
                async for piece in pieces:
                    for start in range(0, len(piece), CHUNK_BYTES):
                        data = piece[start : start + CHUNK_BYTES]
                        yield model_pb2.PushBlobRequest(offset=offset, data=data)
                        offset += len(data)
                        self._sent(offset)
        except Exception as error:
            self.failure = error
            raise
