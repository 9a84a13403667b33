"""A version on its way between the model registry and another one: the same blobs, the same manifest."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from wan22.digests import Sha256
from wan22.errors import DataLoss, InvalidRequest, Reason
from wan22.manifest import ARTIFACT_TYPE, config_of, files_of, manifest_of
from wan22.model_client import ByteCount, ModelClient, Progress
from wan22.names import check_digest
from wan22.oci.registry import MAX_MANIFEST_BYTES, OciRegistry
from wan22.v1 import model_pb2

log = logging.getLogger(__name__)
MAX_CONFIG_BYTES = 1 << 16


@dataclass(frozen=True)
class RemoteBlob:
    """A file of a version that another registry has, as a source to push from."""

    registry: OciRegistry
    file: model_pb2.File

    def read(self, offset: int) -> AsyncGenerator[bytes, None]:
        """Its bytes from an offset."""
        return self.registry.read_blob(self.file.digest, offset)

    def damaged(self, error: DataLoss) -> DataLoss:
        """The other registry has sent other bytes than it was asked for."""
        text = f"{self.registry.reference} has a damaged copy of {self.file.path}: {error.message}"
        return DataLoss(text, reason=Reason.DIGEST_MISMATCH, metadata=error.metadata)

    def __str__(self) -> str:
        return f"{self.file.path} of {self.registry.reference}"


async def push_version(
    version: model_pb2.Version, client: ModelClient, registry: OciRegistry, progress: Progress | None = None
) -> str:
    """Copies a version to the registry's reference, blobs first, and returns the digest, which is the version's.

    What is there already is not sent. Raises DataLoss where a manifest or blob is damaged.
    """
    digest = version.name.rpartition("/")[2]
    raw = await _read_small(client.read_blob(digest), digest, MAX_MANIFEST_BYTES)
    config: str = json.loads(raw)["config"]["digest"]
    await registry.push_blob(config, lambda offset: client.read_blob(config, offset), lambda _: None)
    count = ByteCount(version.size_bytes, progress)
    for file in version.files:
        name = file.digest
        await registry.push_blob(name, lambda offset, name=name: client.read_blob(name, offset), count.within)  # type: ignore[misc]  # a default in a lambda has no type
        count.finish(file.size_bytes)
    await registry.put_manifest(raw)
    return digest


async def pull_version(
    registry: OciRegistry, client: ModelClient, *, model: str, tags: Sequence[str], progress: Progress | None = None
) -> model_pb2.Version:
    """Copies what the registry's reference names into the model registry, as a version with the same digest.

    Nothing is kept on this machine. Raises InvalidRequest (FORBIDDEN_FILE) for an artifact that is no model of wan22,
    DataLoss (DIGEST_MISMATCH) where other bytes come than the manifest says.
    """
    raw = await registry.get_manifest()
    variant, files = await _read_manifest(registry, raw)
    sources = [RemoteBlob(registry, file) for file in files]
    version = await client.push_sources(sources, model=model, variant=variant, tags=tags, progress=progress)
    digest = str(Sha256(raw))
    if not version.name.endswith(digest):
        text = f"{registry.reference} has digest {digest} and was published as {version.name}."
        raise DataLoss(text, reason=Reason.DIGEST_MISMATCH)
    return version


async def _read_manifest(registry: OciRegistry, raw: bytes) -> tuple[str, list[model_pb2.File]]:
    """Variant and files of a manifest that a model registry has written. Raises InvalidRequest for any other."""
    try:
        manifest = json.loads(raw)
        if manifest.get("artifactType") != ARTIFACT_TYPE:
            kind = manifest.get("artifactType") or manifest.get("mediaType")
            raise _foreign(registry, f"it is {kind!r}, not {ARTIFACT_TYPE!r}")
        digest, size = manifest["config"]["digest"], manifest["config"]["size"]
        check_digest(digest, "config.digest")
        _check_sizes(size, *(layer["size"] for layer in manifest["layers"]))
        if size > MAX_CONFIG_BYTES:
            raise _foreign(registry, f"its config has {size} bytes, at most {MAX_CONFIG_BYTES} are taken")
        config = await _read_small(registry.read_blob(digest), digest, size)
        variant: str = json.loads(config)["variant"]
        files = files_of(manifest)
        canonical = manifest_of(config_of(variant), files)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise _foreign(registry, f"its manifest or config is none of a model ({error!r})") from error
    if canonical != raw:
        raise _foreign(registry, "its manifest is not written as a model registry writes it")
    return variant, files


def _check_sizes(*sizes: Any) -> None:
    if not all(type(size) is int and 0 <= size < 1 << 62 for size in sizes):
        raise ValueError("a size is no number of bytes")


def _foreign(registry: OciRegistry, why: str) -> InvalidRequest:
    text = f"{registry.reference} is refused: {why[:400]}."
    return InvalidRequest(text, field="reference", reason=Reason.FORBIDDEN_FILE)


async def _read_small(blob: AsyncGenerator[bytes, None], digest: str, limit: int) -> bytes:
    """A blob whole. Raises DataLoss unless it has its digest, and at most so many bytes."""
    content = b""
    async with aclosing(blob) as chunks:
        async for chunk in chunks:
            content += chunk
            if len(content) > limit:
                break
    if (actual := str(Sha256(content))) != digest:
        text = f"Blob {digest} is damaged where it was read: what came has digest {actual}."
        raise DataLoss(text, reason=Reason.DIGEST_MISMATCH, metadata={"expected": digest, "actual": actual})
    return content
