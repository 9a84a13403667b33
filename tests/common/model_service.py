"""A registry in this process whose calls are counted, held back and broken as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from google.protobuf.empty_pb2 import Empty
from prometheus_client import CollectorRegistry

from wan22.errors import FailedPrecondition, Reason, Unavailable
from wan22.server import Server
from wan22.v1 import model_pb2, model_pb2_grpc
from wan22_registry.blobs import BlobStore
from wan22_registry.metrics import RegistryMetrics
from wan22_registry.model_servicer import ModelServicer
from wan22_registry.versions import Versions


class Watched(ModelServicer):
    """The real servicer, with a ledger of the bytes that went through it."""

    def __init__(self, root: Path) -> None:
        self.blobs = BlobStore(root)
        super().__init__(self.blobs, Versions(root, self.blobs), RegistryMetrics(CollectorRegistry()))
        self.reads: list[tuple[str, int]] = []
        """Digest and offset of each ReadBlob call."""
        self.bytes_read = 0
        self.pushes: list[tuple[str, int]] = []
        """Digest and offset of each PushBlob call."""
        self.held = ""
        """The blob whose reads stop after their first chunk, until `go_on`."""
        self.go_on = asyncio.Event()
        self.stopped = asyncio.Event()
        """Set once a read has stopped so."""
        self.broken_reads = 0
        """How many reads end in UNAVAILABLE after their first chunk."""
        self.broken_pushes = 0
        """How many pushes end in UNAVAILABLE after their first two messages of data."""
        self.lost_blobs = 0
        """How many times PublishVersion says that a blob is missing."""
        self.lost_deletions = 0
        """How many deletions are done and answered with UNAVAILABLE."""

    async def ReadBlob(self, request: model_pb2.ReadBlobRequest, context: Any) -> AsyncIterator[model_pb2.BlobChunk]:
        self.reads.append((request.digest, request.offset))
        async for chunk in super().ReadBlob(request, context):
            self.bytes_read += len(chunk.data)
            yield chunk
            if self.broken_reads:
                self.broken_reads -= 1
                raise Unavailable("Broken by the test.")
            if self.held == request.digest:
                self.stopped.set()
                await self.go_on.wait()

    async def PushBlob(self, requests: AsyncIterator[model_pb2.PushBlobRequest], context: Any) -> model_pb2.Blob:
        async def watched() -> AsyncIterator[model_pb2.PushBlobRequest]:
            count = 0
            async for request in requests:
                if request.HasField("blob"):
                    self.pushes.append((request.blob.digest, request.offset))
                elif self.broken_pushes and count == 2:
                    self.broken_pushes -= 1
                    raise Unavailable("Broken by the test.")
                else:
                    count += 1
                yield request

        return await super().PushBlob(watched(), context)

    async def PublishVersion(self, request: model_pb2.PublishVersionRequest, context: Any) -> model_pb2.Version:
        if self.lost_blobs:
            self.lost_blobs -= 1
            for file in request.files:
                self.blobs.path(file.digest).unlink(missing_ok=True)
            raise FailedPrecondition("Lost by the test.", reason=Reason.BLOB_MISSING)
        return await super().PublishVersion(request, context)

    async def DeleteVersion(self, request: model_pb2.DeleteVersionRequest, context: Any) -> Empty:
        answer = await super().DeleteVersion(request, context)
        if self.lost_deletions:
            self.lost_deletions -= 1
            raise Unavailable("Lost by the test.")
        return answer


@asynccontextmanager
async def serve(servicer: Watched, port: int = 0) -> AsyncIterator[str]:
    """host:port of the servicer."""
    add = model_pb2_grpc.add_ModelServiceServicer_to_server
    async with Server([lambda server: add(servicer, server)], host="127.0.0.1", port=port, stop_grace=0.1) as server:
        yield f"127.0.0.1:{server.port}"


def blob_path(root: Path, digest: str) -> Path:
    """Where a layout or a cache keeps a blob."""
    return root / "blobs" / "sha256" / digest.removeprefix("sha256:")
