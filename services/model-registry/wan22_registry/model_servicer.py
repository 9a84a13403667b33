"""ModelService: translates messages; file work runs in threads, changes of the index one at a time."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty

from wan22.channels import CHUNK_BYTES
from wan22.digests import Sha256, digest_file
from wan22.durable_files import to_its_end
from wan22.errors import DataLoss, InvalidRequest, OutOfRange, Reason
from wan22.names import check_digest
from wan22.v1 import model_pb2, model_pb2_grpc
from wan22_registry import listing
from wan22_registry.blob_push import BlobPush
from wan22_registry.blobs import BlobStore
from wan22_registry.index import Entry
from wan22_registry.metrics import RegistryMetrics
from wan22_registry.roles import audit
from wan22_registry.versions import Versions

log = logging.getLogger(__name__)
MAX_FIND = 10_000
Context = grpc.aio.ServicerContext[Any, Any]


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """Serves one layout."""

    def __init__(self, blobs: BlobStore, versions: Versions, metrics: RegistryMetrics) -> None:
        self._blobs = blobs
        self._versions = versions
        self._metrics = metrics
        self._changing = asyncio.Lock()

    async def FindMissingBlobs(
        self, request: model_pb2.FindMissingBlobsRequest, context: Context
    ) -> model_pb2.FindMissingBlobsResponse:
        """Looks names up."""
        if len(request.blobs) > MAX_FIND:
            raise InvalidRequest(f"blobs has {len(request.blobs)} entries: ask for at most {MAX_FIND}.", field="blobs")
        for blob in request.blobs:
            check_digest(blob.digest, "blobs.digest")
        missing = await asyncio.to_thread(
            lambda: [
                model_pb2.FindMissingBlobsResponse.MissingBlob(
                    digest=blob.digest, offset=min(self._blobs.partial_size(blob.digest), max(0, blob.size_bytes))
                )
                for blob in request.blobs
                if self._blobs.size(blob.digest) != blob.size_bytes
            ]
        )
        self._metrics.lookups.labels("present").inc(len(request.blobs) - len(missing))
        self._metrics.lookups.labels("missing").inc(len(missing))
        return model_pb2.FindMissingBlobsResponse(missing=missing)

    async def PushBlob(
        self, request_iterator: AsyncIterator[model_pb2.PushBlobRequest], context: Context
    ) -> model_pb2.Blob:
        """Takes one blob in; what came of a broken push is kept for the next."""
        first = await anext(aiter(request_iterator), None)
        if first is None or not first.HasField("blob"):
            raise InvalidRequest("The first message has no `blob`: say first which one comes.", field="blob")
        digest, size = check_digest(first.blob.digest, "blob.digest"), first.blob.size_bytes
        if size < 0 or first.offset < 0:
            raise InvalidRequest("blob.size_bytes and offset are 0 or more.", field="offset")
        async with self._blobs.push(digest, size, first.offset) as push:
            if first.data:
                await self._append(push, first.data)
            async for part in request_iterator:
                if part.offset != push.offset:
                    text = f"offset is {part.offset}, the next byte is {push.offset}: send the blob in order."
                    raise InvalidRequest(text, field="offset")
                await self._append(push, part.data)
        log.info("Stored %s, %d bytes.", digest, size)
        return model_pb2.Blob(digest=digest, size_bytes=size)

    async def _append(self, push: BlobPush, data: bytes) -> None:
        await to_its_end(push.append, data)
        self._metrics.pushed_bytes.inc(len(data))

    async def PublishVersion(self, request: model_pb2.PublishVersionRequest, context: Context) -> model_pb2.Version:
        """Makes a version visible."""
        with self._blobs.use(*(file.digest for file in request.files)):
            async with self._changing:
                entry = await to_its_end(self._versions.publish, request)
        audit(context, f"Published {entry.name}, tags {', '.join(entry.tags) or 'none'}.")
        return await self._message(entry)

    async def ListModels(self, request: model_pb2.ListModelsRequest, context: Context) -> model_pb2.ListModelsResponse:
        """Reads the index, a page of it."""
        response = model_pb2.ListModelsResponse()
        size = 0
        entries, more = listing.page(self._versions.list_all(), request)
        for position, entry in enumerate(entries):
            version = await self._message_or_outline(entry)
            size += version.ByteSize()
            if position and size > listing.MAX_PAGE_BYTES:
                entries, more = entries[:position], True
                break
            name = f"models/{entry.model}"
            if not response.models or response.models[-1].name != name:
                response.models.add(name=name)
            response.models[-1].versions.append(version)
        if more:
            response.next_page_token = listing.token_after(entries[-1])
        return response

    async def GetVersion(self, request: model_pb2.GetVersionRequest, context: Context) -> model_pb2.Version:
        """Reads one version."""
        return await self._message(self._versions.get(request.name))

    async def ResolveVersion(self, request: model_pb2.ResolveVersionRequest, context: Context) -> model_pb2.Version:
        """Reads one version by tag."""
        return await self._message(self._versions.resolve(request.reference))

    async def ReadBlob(
        self, request: model_pb2.ReadBlobRequest, context: Context
    ) -> AsyncIterator[model_pb2.BlobChunk]:
        """Streams the bytes as they are on the volume; a read from the start ends in DataLoss where they are others."""
        digest = check_digest(request.digest, "digest")
        with self._blobs.use(digest):
            descriptor = await to_its_end(self._blobs.open, digest)
            try:
                size = os.fstat(descriptor).st_size
                if not 0 <= request.offset <= size:
                    raise OutOfRange(f"offset is {request.offset}: the blob has {size} bytes.")
                offset, actual = request.offset, Sha256()

                def read(position: int) -> bytes:
                    data = os.pread(descriptor, CHUNK_BYTES, position)
                    actual.update(data)
                    return data

                while data := await to_its_end(read, offset):
                    yield model_pb2.BlobChunk(offset=offset, data=data)
                    offset += len(data)
                    self._metrics.read_bytes.inc(len(data))
            finally:
                os.close(descriptor)
            if request.offset == 0 and not self._note_digest(digest, str(actual)):
                text = f"Blob {digest} is damaged: its {offset} bytes have digest {actual}. Import its model again."
                log.error("%s", text)
                metadata = {"expected": digest, "actual": str(actual)}
                raise DataLoss(text, reason=Reason.DIGEST_MISMATCH, metadata=metadata)

    async def PinVersion(self, request: model_pb2.PinVersionRequest, context: Context) -> model_pb2.Version:
        """Pins."""
        return await self._pin(request.name, context, pinned=True)

    async def UnpinVersion(self, request: model_pb2.UnpinVersionRequest, context: Context) -> model_pb2.Version:
        """Unpins."""
        return await self._pin(request.name, context, pinned=False)

    async def ApproveAdapter(self, request: model_pb2.ApproveAdapterRequest, context: Context) -> model_pb2.Version:
        """Approves."""
        return await self._approve(request.name, context, approved=True)

    async def UnapproveAdapter(self, request: model_pb2.UnapproveAdapterRequest, context: Context) -> model_pb2.Version:
        """Ends an approval."""
        return await self._approve(request.name, context, approved=False)

    async def DeleteVersion(self, request: model_pb2.DeleteVersionRequest, context: Context) -> Empty:
        """Removes a version, then the blobs that nothing else needs."""
        async with self._changing:
            gone = await to_its_end(self._versions.delete, request.name)
        audit(context, f"Deleted {request.name}, and {len(gone)} blobs that no other version has.")
        self._metrics.collected.inc(len(gone))
        self._blobs.drop_parts()
        return Empty()

    async def VerifyVersion(
        self, request: model_pb2.VerifyVersionRequest, context: Context
    ) -> model_pb2.VerifyVersionResponse:
        """Hashes every file of a version again."""
        version = await self._message(self._versions.get(request.name))
        response = model_pb2.VerifyVersionResponse()
        for file in version.files:
            actual = await self._read_again(file.digest, response)
            if not self._note_digest(file.digest, actual):
                log.error("%s of %s is damaged: %s.", file.path, version.name, actual or "it is gone")
                response.damaged.add(file=file, actual_digest=actual)
        log.info("Verified %s: %d of %d files damaged.", version.name, len(response.damaged), len(version.files))
        return response

    async def _read_again(self, digest: str, response: model_pb2.VerifyVersionResponse) -> str:
        """The digest of what is stored, empty when nothing is; adds its bytes to the response."""
        with self._blobs.use(digest):
            try:
                actual = str(await digest_file(self._blobs.path(digest)))
                response.bytes_verified += self._blobs.path(digest).stat().st_size
            except FileNotFoundError:
                return ""
        return actual

    def _note_digest(self, digest: str, actual: str) -> bool:
        """Remembers whether a blob is whole, and tells it."""
        self._blobs.set_damaged(digest, damaged=actual != digest)
        return actual == digest

    async def _pin(self, name: str, context: Context, *, pinned: bool) -> model_pb2.Version:
        async with self._changing:
            entry = await to_its_end(lambda: self._versions.set_pinned(name, pinned=pinned))
        audit(context, f"{'Pinned' if pinned else 'Unpinned'} {name}.")
        return await self._message(entry)

    async def _approve(self, name: str, context: Context, *, approved: bool) -> model_pb2.Version:
        async with self._changing:
            entry = await to_its_end(lambda: self._versions.set_approved(name, approved=approved))
        audit(context, f"{'Approved' if approved else 'Ended the approval of'} {name}.")
        return await self._message(entry)

    async def _message_or_outline(self, entry: Entry) -> model_pb2.Version:
        """A damaged version is listed without its files: it is to be seen, and must not hide the others."""
        try:
            return await self._message(entry)
        except DataLoss as error:
            log.error("%s", error.message)  # noqa: TRY400  # the place in the code says nothing
            return self._versions.outline(entry)

    async def _message(self, entry: Entry) -> model_pb2.Version:
        return await asyncio.to_thread(self._versions.message, entry)
