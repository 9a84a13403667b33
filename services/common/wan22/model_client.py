"""The registry's client, of the command, workers and the gateway: pushes folders, resolves references, reads blobs."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from wan22.blob_source import BlobMessages, BlobSource, blob_of
from wan22.client_calls import TRANSIENT, Calls
from wan22.errors import DataLoss, FailedPrecondition, OutOfRange, Reason
from wan22.local_file import LocalFile
from wan22.model_folder import read_model_folder
from wan22.renewed_channel import RenewedChannel
from wan22.tls import Tls
from wan22.v1 import model_pb2
from wan22.v1.model_pb2 import Model, Version
from wan22.v1.model_pb2_grpc import ModelServiceStub
from wan22.weights_file import WeightsFile

if TYPE_CHECKING:
    from wan22.model_packing import Packer  # needs the extra `pack`, which not every user of this client has
    from wan22.v1.model_pb2_grpc import ModelServiceAsyncStub  # is in the stub file only

log = logging.getLogger(__name__)
CALL_SECONDS = 60.0
BLOB_SECONDS = 3600.0
"""Deadline of one blob: 100 GB at 30 MB/s."""
WEIGHTS = ".safetensors"
PUBLISH_TRIES = 3
"""A blob that was there can be deleted with another version before ours names it."""

Progress = Callable[[int, int], object]
"""Called with the bytes done and the bytes in all."""


class ByteCount:
    """Adds up the progress of files that come one after the other."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._progress = progress
        self._finished = 0

    def within(self, position: int) -> None:
        """Tells where in the present file we are, bytes."""
        if self._progress:
            self._progress(self._finished + position, self._total)

    def finish(self, size: int) -> None:
        """Goes on to the next file."""
        self._finished += size
        self.within(0)


class ModelClient:
    """A connection to a registry at host:port; use as an async context manager. Errors are those of wan22.errors.

    UNAVAILABLE is tried again for `patience` seconds (`first_patience` at a registry that never answered); transfers
    resume where they stopped.
    """

    def __init__(
        self, target: str, tls: Tls | None = None, *, first_patience: float = 5.0, patience: float = 60.0
    ) -> None:
        self.target = target
        self._tls = tls
        self._calls = Calls(target, None, first_patience=first_patience, patience=patience)

    async def __aenter__(self) -> Self:
        self._channel = RenewedChannel(self.target, self._tls, role="registry")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    @property
    def _stub(self) -> ModelServiceAsyncStub:
        return ModelServiceStub(self._channel.current())

    async def push_folder(
        self,
        folder: Path,
        *,
        model: str,
        variant: str,
        tags: Sequence[str],
        packer: Packer | None = None,
        progress: Progress | None = None,
    ) -> Version:
        """Pushes what the registry lacks of a model folder, publishes it, and returns the version.

        With a packer, weights are stored packed. Raises InvalidRequest (FORBIDDEN_FILE) naming a file that no model may
        have; what may be left out (`wan22.model_folder`) is left out and logged.
        """
        listed = await asyncio.to_thread(read_model_folder, folder)
        if listed.left_out:
            log.info("Left out of %s: %s.", model, ", ".join(str(p.relative_to(folder)) for p in listed.left_out))
        with tempfile.TemporaryDirectory() as made:
            sources = {**listed.files, **await asyncio.to_thread(_write_all, Path(made), listed.made)}
            return await self.push(sources, model=model, variant=variant, tags=tags, packer=packer, progress=progress)

    async def push(
        self,
        files: Mapping[str, Path],
        *,
        model: str,
        variant: str,
        tags: Sequence[str],
        packer: Packer | None = None,
        kept: Sequence[model_pb2.File] = (),
        progress: Progress | None = None,
    ) -> Version:
        """Pushes what the registry lacks of these files, publishes them as a version, and returns it.

        `files` are by their path in the model. With a packer, weights are stored packed. `kept` are files that the
        registry has, of another version.
        """
        packed = {name: path for name, path in files.items() if packer and path.suffix == WEIGHTS}
        weights = [await asyncio.to_thread(WeightsFile.find, path, name) for name, path in sorted(packed.items())]
        plain = [await LocalFile.describe(path, name) for name, path in sorted(files.items()) if name not in packed]
        total = sum(local.file.size_bytes for local in plain) + sum(file.size for file in weights)

        async def store() -> Sequence[model_pb2.File]:
            count = ByteCount(total, progress)
            await self._push_missing(plain, count)
            stored = [*kept, *(local.file for local in plain)]
            if packer:
                stored += [await self._push_packed(file, packer, count) for file in weights]
            return stored

        version = await self._publish(store, model, variant, tags)
        if packer:
            packer.forget(weights)
        return version

    async def push_sources(
        self,
        sources: Sequence[BlobSource],
        *,
        model: str,
        variant: str,
        tags: Sequence[str],
        progress: Progress | None = None,
    ) -> Version:
        """Pushes what the registry lacks of these, as they are, publishes them as a version, and returns it."""
        total = sum(source.file.size_bytes for source in sources)

        async def store() -> Sequence[model_pb2.File]:
            await self._push_missing(sources, ByteCount(total, progress))
            return [source.file for source in sources]

        return await self._publish(store, model, variant, tags)

    async def _publish(
        self,
        store: Callable[[], Awaitable[Sequence[model_pb2.File]]],
        model: str,
        variant: str,
        tags: Sequence[str],
    ) -> Version:
        """Publishes what `store` has stored; again where a blob of it has gone meanwhile."""
        for tries_left in reversed(range(PUBLISH_TRIES)):
            stored = await store()
            publish = model_pb2.PublishVersionRequest(model=model, variant=variant, files=stored, tags=tags)
            try:
                return await self._calls.unary(self._stub.PublishVersion, publish, deadline=CALL_SECONDS)
            except FailedPrecondition as error:
                if error.reason is not Reason.BLOB_MISSING or not tries_left:
                    raise
                log.warning("Pushing again what is missing by now: %s", error.message)
        raise AssertionError("the last try returns or raises")

    async def resolve(self, reference: str) -> Version:
        """The version of `MODEL[:TAG][@sha256:DIGEST]`. Raises NotFound naming the tags that there are."""
        request = model_pb2.ResolveVersionRequest(reference=reference)
        return await self._calls.unary(self._stub.ResolveVersion, request, deadline=CALL_SECONDS)

    async def get_version(self, name: str) -> Version:
        """One version by `models/{model}/versions/{digest}`. Raises NotFound."""
        request = model_pb2.GetVersionRequest(name=name)
        return await self._calls.unary(self._stub.GetVersion, request, deadline=CALL_SECONDS)

    async def list_models(self) -> Sequence[Model]:
        """Every model with its versions, by name; newest version first."""
        return [model async for model in self.iterate_models()]

    async def iterate_models(self, page_size: int = 0) -> AsyncIterator[Model]:
        """Yields the models by name, each once it is complete. `page_size` is of each call; 0 is the registry's own."""
        request = model_pb2.ListModelsRequest(page_size=page_size)
        begun: Model | None = None
        while True:
            page = await self._calls.unary(self._stub.ListModels, request, deadline=CALL_SECONDS)
            for model in page.models:
                if begun is not None and begun.name == model.name:
                    begun.versions.extend(model.versions)
                    continue
                if begun is not None:
                    yield begun
                begun = model
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        if begun is not None:
            yield begun

    async def pin(self, name: str) -> Version:
        """Keeps a version from being deleted."""
        request = model_pb2.PinVersionRequest(name=name)
        return await self._calls.unary(self._stub.PinVersion, request, deadline=CALL_SECONDS)

    async def unpin(self, name: str) -> Version:
        """Ends a pin."""
        request = model_pb2.UnpinVersionRequest(name=name)
        return await self._calls.unary(self._stub.UnpinVersion, request, deadline=CALL_SECONDS)

    async def approve_adapter(self, name: str) -> Version:
        """Lets requests use an adapter. Raises FailedPrecondition for a version that is none."""
        request = model_pb2.ApproveAdapterRequest(name=name)
        return await self._calls.unary(self._stub.ApproveAdapter, request, deadline=CALL_SECONDS)

    async def unapprove_adapter(self, name: str) -> Version:
        """Ends an adapter's approval."""
        request = model_pb2.UnapproveAdapterRequest(name=name)
        return await self._calls.unary(self._stub.UnapproveAdapter, request, deadline=CALL_SECONDS)

    async def delete(self, name: str) -> None:
        """Removes a version. Raises FailedPrecondition when it is pinned."""
        request = model_pb2.DeleteVersionRequest(name=name)
        await self._calls.delete(self._stub.DeleteVersion, request, deadline=CALL_SECONDS)

    async def verify(self, name: str) -> model_pb2.VerifyVersionResponse:
        """Has the registry read a version's blobs again."""
        request = model_pb2.VerifyVersionRequest(name=name)
        return await self._calls.unary(self._stub.VerifyVersion, request, deadline=BLOB_SECONDS)

    async def read_blob(self, digest: str, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """Yields a blob's bytes from an offset, resuming where a stream broke. The caller compares the digest."""
        patience = self._calls.patience()
        while True:
            request = model_pb2.ReadBlobRequest(digest=digest, offset=offset)
            try:
                async with self._calls.stream(self._stub.ReadBlob, request, deadline=BLOB_SECONDS) as chunks:
                    async for chunk in chunks:
                        offset += len(chunk.data)
                        patience.restore()
                        yield chunk.data
            except TRANSIENT as error:
                await patience.pause(error)
            else:
                return

    async def _push_missing(self, sources: Sequence[BlobSource], count: ByteCount) -> None:
        missing = await self._missing([blob_of(source) for source in sources])
        for source in sources:
            if source.file.digest in missing:
                await self._push_blob(source, count.within)
                missing.discard(source.file.digest)
            count.finish(source.file.size_bytes)

    async def _push_packed(self, source: WeightsFile, packer: Packer, count: ByteCount) -> model_pb2.File:
        """Half of the progress is packing, half pushing."""
        size = source.size
        stored = packer.pushed_before(source)
        if stored is None or await self._missing([model_pb2.Blob(digest=stored.digest, size_bytes=stored.size_bytes)]):
            async with packer.packed(source, lambda done: count.within(done // 2)) as local:
                stored = local.file
                whole = stored.size_bytes
                await self._push_blob(local, lambda sent: count.within((size + size * sent // whole) // 2))
        count.finish(size)
        return stored

    async def _missing(self, blobs: Sequence[model_pb2.Blob]) -> set[str]:
        """Digests of those that the registry lacks."""
        unique = {blob.digest: blob for blob in blobs}
        request = model_pb2.FindMissingBlobsRequest(blobs=unique.values())
        answer = await self._calls.unary(self._stub.FindMissingBlobs, request, deadline=CALL_SECONDS)
        return {blob.digest for blob in answer.missing}

    async def _push_blob(self, source: BlobSource, sent: Callable[[int], object]) -> None:
        """Pushes one blob; each try starts where the registry says that the last one, or somebody else's, stopped."""
        request = model_pb2.FindMissingBlobsRequest(blobs=[blob_of(source)])
        patience = self._calls.patience()
        reached = 0
        while True:
            answer = await self._calls.unary(self._stub.FindMissingBlobs, request, deadline=CALL_SECONDS)
            if not answer.missing:
                return
            offset = answer.missing[0].offset
            if offset > reached:
                reached = offset
                patience.restore()
            messages = BlobMessages(source, offset, sent)
            try:
                await self._send(messages)
            except TRANSIENT as error:
                await patience.pause(error)
            except OutOfRange as error:
                if not offset:
                    raise
                log.info("Looking again where to push %s: %s", source, error.message)  # another caller was quicker
            except DataLoss as error:
                if not offset:
                    raise source.damaged(error) from error
                log.warning("What an earlier push of %s left is damaged: pushing it from its start.", source)
            else:
                return

    async def _send(self, messages: BlobMessages) -> None:
        try:
            await self._calls.send_once(self._stub.PushBlob, aiter(messages), deadline=BLOB_SECONDS)
        except asyncio.CancelledError:  # also gRPC's answer to messages that cannot be read
            if messages.failure:
                raise messages.failure from None
            raise


def _write_all(folder: Path, contents: Mapping[str, bytes]) -> Mapping[str, Path]:
    """Files with these contents, by the same names."""
    paths = {name: folder / str(number) for number, name in enumerate(contents)}
    for name, path in paths.items():
        path.write_bytes(contents[name])
    return paths
