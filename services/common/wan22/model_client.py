"""The registry's client, of the command, workers and the gateway: pushes folders, resolves references, reads blobs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from wan22.channels import CHUNK_BYTES, open_channel
from wan22.client_calls import TRANSIENT, Calls
from wan22.errors import InvalidRequest, Reason
from wan22.v1 import model_pb2
from wan22.v1.model_pb2 import Model, Version
from wan22.v1.model_pb2_grpc import ModelServiceStub

if TYPE_CHECKING:
    from wan22.v1.model_pb2_grpc import ModelServiceAsyncStub  # is in the stub file only

WEIGHTS_AND_CONFIG = (".safetensors", ".json")
LEFT_OUT = (".md", ".txt", ".gitattributes", "LICENSE", "NOTICE")
"""Files of a model folder that no engine reads; any other kind is refused, a pickle above all."""
CALL_SECONDS = 60.0
BLOB_SECONDS = 3600.0
"""Deadline of one blob: 100 GB at 30 MB/s."""

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


@dataclass(frozen=True)
class LocalFile:
    """A file to push."""

    path: Path
    file: model_pb2.File


class ModelClient:
    """A connection to a registry at host:port; use as an async context manager. Errors are those of wan22.errors.

    UNAVAILABLE is tried again for `patience` seconds (`first_patience` at a registry that never answered); transfers
    resume where they stopped.
    """

    def __init__(self, target: str, *, first_patience: float = 5.0, patience: float = 60.0) -> None:
        self.target = target
        self._calls = Calls(target, None, first_patience=first_patience, patience=patience)

    async def __aenter__(self) -> Self:
        self._channel = open_channel(self.target)
        self._stub: ModelServiceAsyncStub = ModelServiceStub(self._channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def push_folder(
        self, folder: Path, *, model: str, variant: str, tags: Sequence[str], progress: Progress | None = None
    ) -> Version:
        """Pushes what the registry lacks of a diffusers-format folder, publishes it, and returns the version.

        Raises InvalidRequest (FORBIDDEN_FILE) naming a file that no model may have.
        """
        files = [await asyncio.to_thread(_describe, folder, path) for path in model_files(folder)]
        total = sum(local.file.size_bytes for local in files)
        blobs = {
            local.file.digest: model_pb2.Blob(digest=local.file.digest, size_bytes=local.file.size_bytes)
            for local in files
        }
        request = model_pb2.FindMissingBlobsRequest(blobs=blobs.values())
        answer = await self._calls.unary(self._stub.FindMissingBlobs, request, deadline=CALL_SECONDS)
        missing = {blob.digest for blob in answer.missing}
        done = 0
        for local in files:
            if local.file.digest in missing:
                await self._push_blob(local, lambda sent, base=done: progress and progress(base + sent, total))  # type: ignore[misc]
                missing.discard(local.file.digest)
            done += local.file.size_bytes
            if progress:
                progress(done, total)
        publish = model_pb2.PublishVersionRequest(
            model=model, variant=variant, files=[local.file for local in files], tags=tags
        )
        return await self._calls.unary(self._stub.PublishVersion, publish, deadline=CALL_SECONDS)

    async def resolve(self, reference: str) -> Version:
        """The version of `MODEL[:TAG][@sha256:DIGEST]`. Raises NotFound naming the tags that there are."""
        request = model_pb2.ResolveVersionRequest(reference=reference)
        return await self._calls.unary(self._stub.ResolveVersion, request, deadline=CALL_SECONDS)

    async def get_version(self, name: str) -> Version:
        """One version by `models/{model}/versions/{digest}`. Raises NotFound."""
        request = model_pb2.GetVersionRequest(name=name)
        return await self._calls.unary(self._stub.GetVersion, request, deadline=CALL_SECONDS)

    async def list_models(self) -> Sequence[Model]:
        """Every model with its versions, by name."""
        request = model_pb2.ListModelsRequest()
        return (await self._calls.unary(self._stub.ListModels, request, deadline=CALL_SECONDS)).models

    async def pin(self, name: str) -> Version:
        """Keeps a version from being deleted."""
        request = model_pb2.PinVersionRequest(name=name)
        return await self._calls.unary(self._stub.PinVersion, request, deadline=CALL_SECONDS)

    async def unpin(self, name: str) -> Version:
        """Ends a pin."""
        request = model_pb2.UnpinVersionRequest(name=name)
        return await self._calls.unary(self._stub.UnpinVersion, request, deadline=CALL_SECONDS)

    async def delete(self, name: str) -> None:
        """Removes a version. Raises FailedPrecondition when it is pinned."""
        request = model_pb2.DeleteVersionRequest(name=name)
        await self._calls.unary(self._stub.DeleteVersion, request, deadline=CALL_SECONDS)

    async def verify(self, name: str) -> model_pb2.VerifyVersionResponse:
        """Has the registry read a version's blobs again."""
        request = model_pb2.VerifyVersionRequest(name=name)
        return await self._calls.unary(self._stub.VerifyVersion, request, deadline=BLOB_SECONDS)

    async def read_blob(self, digest: str, offset: int = 0) -> AsyncIterator[bytes]:
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

    async def _push_blob(self, local: LocalFile, sent: Callable[[int], object]) -> None:
        """Pushes one blob; each try starts where the registry says that the last one stopped."""
        blob = model_pb2.Blob(digest=local.file.digest, size_bytes=local.file.size_bytes)
        patience = self._calls.patience()
        while True:
            request = model_pb2.FindMissingBlobsRequest(blobs=[blob])
            answer = await self._calls.unary(self._stub.FindMissingBlobs, request, deadline=CALL_SECONDS)
            if not answer.missing:
                return
            try:
                parts = _parts(local.path, blob, answer.missing[0].offset, sent)
                await self._calls.send_once(self._stub.PushBlob, parts, deadline=BLOB_SECONDS)
            except TRANSIENT as error:
                await patience.pause(error)
            else:
                return


def model_files(folder: Path) -> list[Path]:
    """The files of a model folder that enter a registry, by path. Raises InvalidRequest."""
    if not (folder / "model_index.json").is_file():
        text = f"{folder} is no model folder in diffusers' format: it has no model_index.json."
        raise InvalidRequest(text, field="folder")
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix in WEIGHTS_AND_CONFIG:
            found.append(path)
        elif not path.name.endswith(LEFT_OUT):
            text = f"{path} is neither safetensors nor JSON: only these enter a registry. Convert or remove it."
            raise InvalidRequest(text, field="folder", reason=Reason.FORBIDDEN_FILE)
    return found


def _describe(folder: Path, path: Path) -> LocalFile:
    with path.open("rb") as file:
        digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    name = path.relative_to(folder).as_posix()
    return LocalFile(path, model_pb2.File(path=name, digest=digest, size_bytes=path.stat().st_size))


async def _parts(
    path: Path, blob: model_pb2.Blob, offset: int, sent: Callable[[int], object]
) -> AsyncIterator[model_pb2.PushBlobRequest]:
    yield model_pb2.PushBlobRequest(blob=blob, offset=offset)
    with await asyncio.to_thread(path.open, "rb") as file:
        await asyncio.to_thread(file.seek, offset)
        while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield model_pb2.PushBlobRequest(offset=offset, data=data)
            offset += len(data)
            sent(offset)
