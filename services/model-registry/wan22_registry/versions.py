"""Versions and tags: OCI manifests, and `index.json`, the one truth about which there are."""

from __future__ import annotations

import calendar
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wan22.errors import DataLoss, FailedPrecondition, InvalidRequest, NotFound, Reason
from wan22.names import VersionName, VersionReference, check_digest, check_model, check_tag
from wan22.v1 import model_pb2
from wan22.variants import VARIANTS
from wan22_registry.blobs import BlobStore, replace
from wan22_registry.model_files import check_content, check_path

ARTIFACT_TYPE = "application/vnd.wan22.model.v1+json"
CONFIG_TYPE = "application/vnd.wan22.model.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
FILE_TYPES = {".json": "application/json", ".safetensors": "application/vnd.wan22.safetensors"}
TITLE = "org.opencontainers.image.title"
REF_NAME = "org.opencontainers.image.ref.name"
CREATED = "org.opencontainers.image.created"
MODEL, TAGS, PINNED = "dev.wan22.model", "dev.wan22.tags", "dev.wan22.pinned"


@dataclass
class Entry:
    """One version in the index."""

    model: str
    digest: str
    manifest_size: int
    created: int
    """Seconds since 1970."""
    tags: list[str] = field(default_factory=list)
    pinned: bool = False

    @property
    def name(self) -> VersionName:
        """models/{model}/versions/{digest}."""
        return VersionName(self.model, self.digest)


class Versions:
    """The index and the manifests. Its methods block for a few file operations; call them one at a time."""

    def __init__(self, root: Path, blobs: BlobStore) -> None:
        self._index = root / "index.json"
        self._blobs = blobs
        layout = root / "oci-layout"
        if not layout.exists():
            replace(layout, json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        self._entries = [_read_entry(item) for item in self._read_index()]

    def publish(self, request: model_pb2.PublishVersionRequest) -> Entry:
        """Checks the files, writes the manifest and then, in one step, the index.

        Raises InvalidRequest (FORBIDDEN_FILE), FailedPrecondition (BLOB_MISSING) naming what has to be pushed first.
        """
        model = check_model(request.model)
        tags = [check_tag(tag) for tag in request.tags]
        if request.variant not in VARIANTS:
            text = f"variant is {request.variant!r}: use one of {', '.join(sorted(VARIANTS))}."
            raise InvalidRequest(text, field="variant")
        manifest = self._manifest(request.variant, _check_files(request.files), self._blobs)
        digest = self._blobs.write(manifest)
        entry = self._find(VersionName(model, digest))
        entries = [e for e in self._entries if e is not entry]
        entry = entry or Entry(model, digest, len(manifest), int(time.time()))
        moved = [self._without_tags(e, model, tags) for e in entries]
        tagged = Entry(model, digest, len(manifest), entry.created, sorted({*entry.tags, *tags}), entry.pinned)
        self._write_index([*moved, tagged])
        return tagged

    def list_all(self) -> Sequence[Entry]:
        """Every version, newest first."""
        return sorted(self._entries, key=lambda entry: -entry.created)

    def get(self, name: str) -> Entry:
        """One version by name. Raises NotFound."""
        wanted = VersionName.parse(name)
        entry = self._find(wanted)
        if entry is None:
            raise NotFound(f"{wanted} is not in this registry: see `wan22 models list`.")
        return entry

    def resolve(self, reference: str) -> Entry:
        """One version by `MODEL[:TAG][@sha256:DIGEST]`. Raises NotFound saying what there is instead."""
        wanted = VersionReference.parse(reference)
        of_model = [entry for entry in self._entries if entry.model == wanted.model]
        if not of_model:
            known = ", ".join(sorted({entry.model for entry in self._entries})) or "none"
            raise NotFound(f"Model {wanted.model!r} is not in this registry; there are: {known}.")
        for entry in of_model:
            if wanted.digest in {None, entry.digest} and (wanted.tag is None or wanted.tag in entry.tags):
                return entry
        tags = ", ".join(sorted(tag for entry in of_model for tag in entry.tags)) or "none"
        raise NotFound(f"{wanted} is not in this registry; the tags of {wanted.model} are: {tags}.")

    def set_pinned(self, name: str, *, pinned: bool) -> Entry:
        """Pins or unpins. Raises NotFound."""
        old = self.get(name)
        new = Entry(old.model, old.digest, old.manifest_size, old.created, old.tags, pinned)
        self._write_index([new if entry is old else entry for entry in self._entries])
        return new

    def delete(self, name: str) -> set[str]:
        """Unlists a version and returns its blobs. Raises NotFound, FailedPrecondition (VERSION_PINNED)."""
        entry = self.get(name)
        if entry.pinned:
            raise FailedPrecondition(f"{name} is pinned: unpin it first.", reason=Reason.VERSION_PINNED)
        blobs = self._blobs_of(entry)
        self._write_index([other for other in self._entries if other is not entry])
        return blobs

    def live_blobs(self) -> set[str]:
        """Digests of everything that some version consists of, manifests and configs too."""
        return set().union(*(self._blobs_of(entry) for entry in self._entries))

    def message(self, entry: Entry) -> model_pb2.Version:
        """The version as clients see it. Raises DataLoss when its manifest is damaged."""
        manifest = self._read_manifest(entry)
        config = json.loads(self._blobs.path(manifest["config"]["digest"]).read_bytes())
        files = [
            model_pb2.File(path=layer["annotations"][TITLE], digest=layer["digest"], size_bytes=layer["size"])
            for layer in manifest["layers"]
        ]
        message = model_pb2.Version(
            name=str(entry.name),
            variant=config["variant"],
            files=files,
            tags=entry.tags,
            pinned=entry.pinned,
            size_bytes=sum(file.size_bytes for file in files),
        )
        message.create_time.FromSeconds(entry.created)
        return message

    def _blobs_of(self, entry: Entry) -> set[str]:
        manifest = self._read_manifest(entry)
        return {entry.digest, manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}

    def _find(self, name: VersionName) -> Entry | None:
        return next((entry for entry in self._entries if entry.name == name), None)

    @staticmethod
    def _without_tags(entry: Entry, model: str, tags: Sequence[str]) -> Entry:
        kept = [tag for tag in entry.tags if entry.model != model or tag not in tags]
        return Entry(entry.model, entry.digest, entry.manifest_size, entry.created, kept, entry.pinned)

    @staticmethod
    def _manifest(variant: str, files: Sequence[model_pb2.File], blobs: BlobStore) -> bytes:
        """The OCI image manifest: nothing in it but the variant and the files, so that equal content has one digest."""
        for file in files:
            size = blobs.size(file.digest)
            if size is None:
                text = f"{file.path} ({file.digest}) has not been pushed: push it, then publish."
                raise FailedPrecondition(text, reason=Reason.BLOB_MISSING)
            if size != file.size_bytes:
                text = f"{file.path} is declared with {file.size_bytes} bytes, its blob has {size}."
                raise InvalidRequest(text, field="files")
            check_content(file.path, blobs.path(file.digest))
        config = _json({"variant": variant})
        layers = [
            {
                "mediaType": FILE_TYPES["." + file.path.rpartition(".")[2]],
                "digest": file.digest,
                "size": file.size_bytes,
                "annotations": {TITLE: file.path},
            }
            for file in files
        ]
        return _json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "artifactType": ARTIFACT_TYPE,
                "config": {"mediaType": CONFIG_TYPE, "digest": blobs.write(config), "size": len(config)},
                "layers": layers,
            }
        )

    def _read_manifest(self, entry: Entry) -> dict[str, Any]:
        actual = self._blobs.digest_of(entry.digest)
        if actual != entry.digest:
            text = f"The manifest of {entry.name} has digest {actual or 'none: it is gone'}: import the model again."
            raise DataLoss(text, reason=Reason.DIGEST_MISMATCH)
        manifest: dict[str, Any] = json.loads(self._blobs.path(entry.digest).read_bytes())
        return manifest

    def _read_index(self) -> list[dict[str, Any]]:
        if not self._index.exists():
            return []
        items: list[dict[str, Any]] = json.loads(self._index.read_bytes())["manifests"]
        return items

    def _write_index(self, entries: list[Entry]) -> None:
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [_write_entry(entry) for entry in entries],
        }
        replace(self._index, _json(index))
        self._entries = entries


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _check_files(files: Sequence[model_pb2.File]) -> list[model_pb2.File]:
    if not files:
        raise InvalidRequest("files is empty: a version has at least one file.", field="files")
    for file in files:
        check_path(file.path)
        check_digest(file.digest, "files.digest")
    ordered = sorted(files, key=lambda file: file.path)
    for first, second in itertools.pairwise(ordered):
        if first.path == second.path:
            raise InvalidRequest(f"files has {first.path} twice.", field="files")
    return ordered


def _write_entry(entry: Entry) -> dict[str, Any]:
    annotations = {
        MODEL: entry.model,
        TAGS: ",".join(entry.tags),
        PINNED: str(entry.pinned).lower(),
        CREATED: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.created)),
    }
    if entry.tags:
        annotations[REF_NAME] = f"{entry.model}:{entry.tags[0]}"
    return {
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "digest": entry.digest,
        "size": entry.manifest_size,
        "annotations": annotations,
    }


def _read_entry(item: dict[str, Any]) -> Entry:
    notes = item["annotations"]
    tags = [tag for tag in notes[TAGS].split(",") if tag]
    created = calendar.timegm(time.strptime(notes[CREATED], "%Y-%m-%dT%H:%M:%SZ"))
    return Entry(notes[MODEL], item["digest"], item["size"], created, tags, notes[PINNED] == "true")
