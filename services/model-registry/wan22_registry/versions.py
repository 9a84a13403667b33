"""Versions and tags: what may be published, found, pinned and deleted."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from wan22.adapter import ADAPTER_FILE, WEIGHTS_FILE, Adapter
from wan22.digests import Sha256
from wan22.errors import DataLoss, FailedPrecondition, InvalidRequest, NotFound, Reason
from wan22.manifest import canonical_json, config_digest, config_of, files_of, manifest_of
from wan22.names import VersionName, VersionReference, check_digest, check_model, check_tag
from wan22.v1 import model_pb2
from wan22.variants import VARIANTS
from wan22_registry.adapter_messages import adapter_message
from wan22_registry.blobs import BlobStore
from wan22_registry.index import Entry, Index
from wan22_registry.model_files import check_content, check_path

log = logging.getLogger(__name__)


class Versions:
    """The versions of a layout. Its methods block for a few file operations; change one thing at a time."""

    def __init__(self, root: Path, blobs: BlobStore) -> None:
        self._index = Index(root)
        self._blobs = blobs
        if any(entry.copied for entry in self._index.entries):
            self._adopt_copied()

    def publish(self, request: model_pb2.PublishVersionRequest) -> Entry:
        """Checks the files, writes config and manifest and then, in one step, the index.

        Raises InvalidRequest (FORBIDDEN_FILE), FailedPrecondition (BLOB_MISSING) naming what has to be pushed first.
        """
        model = check_model(request.model)
        tags = [check_tag(tag) for tag in request.tags]
        if request.variant not in VARIANTS:
            text = f"variant is {request.variant!r}: use one of {', '.join(sorted(VARIANTS))}."
            raise InvalidRequest(text, field="variant")
        files = _check_files(request.files)
        for file in files:
            self._check_blob(file)
        self._check_adapter(files, request.variant)
        config = config_of(request.variant)
        manifest = manifest_of(config, files)
        self._blobs.write(config)
        digest = self._blobs.write(manifest)
        known = next((entry for entry in self._index.entries if entry.name == VersionName(model, digest)), None)
        new = known or Entry(model, digest, len(manifest), self._index.next_create_time())
        new = dataclasses.replace(new, tags=tuple(sorted({*new.tags, *tags})))
        entries = [_without_tags(entry, tags) if entry.model == model else entry for entry in self._index.entries]
        if known:
            entries[self._index.entries.index(known)] = new
        else:
            entries.append(new)
        self._index.replace(entries)
        return new

    def list_all(self) -> Sequence[Entry]:
        """Every version, newest first."""
        return self._index.entries[::-1]

    def get(self, name: str) -> Entry:
        """One version by name. Raises NotFound."""
        wanted = VersionName.parse(name)
        for entry in self._index.entries:
            if entry.name == wanted:
                return entry
        raise NotFound(f"{wanted} is not in this registry: see `wan22 models list`.")

    def has(self, entry: Entry) -> bool:
        """Whether a version that was listed is still there, whatever its tags."""
        return any(other.name == entry.name for other in self._index.entries)

    def resolve(self, reference: str) -> Entry:
        """One version by `MODEL[:TAG][@sha256:DIGEST]`. Raises NotFound saying what there is instead."""
        wanted = VersionReference.parse(reference)
        of_model = [entry for entry in self._index.entries if entry.model == wanted.model]
        if not of_model:
            known = ", ".join(sorted({entry.model for entry in self._index.entries})) or "none"
            raise NotFound(f"Model {wanted.model!r} is not in this registry; there are: {known}.")
        for entry in of_model:
            if wanted.digest in {None, entry.digest} and (wanted.tag is None or wanted.tag in entry.tags):
                return entry
        tags = ", ".join(sorted(tag for entry in of_model for tag in entry.tags)) or "none"
        raise NotFound(f"{wanted} is not in this registry; the tags of {wanted.model} are: {tags}.")

    def set_pinned(self, name: str, *, pinned: bool) -> Entry:
        """Pins or unpins. Raises NotFound."""
        old = self.get(name)
        return self._exchange(old, dataclasses.replace(old, pinned=pinned))

    def set_approved(self, name: str, *, approved: bool) -> Entry:
        """Lets requests use an adapter or not. Raises NotFound, FailedPrecondition for what is no adapter."""
        entry = self.get(name)
        if not self.message(entry).HasField("adapter"):
            raise FailedPrecondition(f"{name} is a whole model: only adapters are approved.")
        return self._exchange(entry, dataclasses.replace(entry, approved=approved))

    def delete(self, name: str) -> list[str]:
        """Removes a version, then the blobs that no other has, and returns these.

        Raises NotFound, FailedPrecondition (VERSION_PINNED).
        """
        entry = self.get(name)
        if entry.pinned:
            raise FailedPrecondition(f"{name} is pinned: unpin it first.", reason=Reason.VERSION_PINNED)
        try:
            released = self._blobs_of(entry)
        except DataLoss as error:
            log.warning("The files of %s go when they are a day old: %s", name, error.message)
            released = {entry.digest}
        self._index.replace(other for other in self._index.entries if other is not entry)
        return self.collect(released)

    def collect(self, released: set[str]) -> list[str]:
        """Deletes the blobs that no version has: `released` ones at once, others a day after they came."""
        try:
            live = set().union(*(self._blobs_of(entry) for entry in self._index.entries))
        except DataLoss as error:  # what a damaged manifest needs is unknown, so that nothing may go
            log.warning("No blob is collected: %s", error.message)
            return []
        return self._blobs.collect(live, released)

    def message(self, entry: Entry) -> model_pb2.Version:
        """The version as clients see it. Raises DataLoss when its manifest is damaged."""
        manifest = self._read(entry, entry.digest, "manifest")
        files = files_of(manifest)
        message = self.outline(entry)
        message.variant = self._read(entry, config_digest(manifest), "config")["variant"]
        message.files.extend(files)
        message.size_bytes = sum(file.size_bytes for file in files)
        if adapter := next((file for file in files if file.path == ADAPTER_FILE), None):
            content = canonical_json(self._read(entry, adapter.digest, ADAPTER_FILE))
            message.adapter.CopyFrom(adapter_message(Adapter.from_json(content), approved=entry.approved))
        return message

    @staticmethod
    def outline(entry: Entry) -> model_pb2.Version:
        """What the index says of a version: all but its variant and files."""
        message = model_pb2.Version(name=str(entry.name), tags=entry.tags, pinned=entry.pinned)
        message.create_time.FromDatetime(entry.create_time)
        return message

    def _adopt_copied(self) -> None:
        """Checks versions that another tool has copied here as if they were published, and makes them ours.

        Raises what publishing raises, DataLoss for a manifest that no registry of ours has written.
        """
        entries: dict[VersionName, Entry] = {}
        for entry in self._index.entries:
            if not entry.copied:
                entries[entry.name] = entry
                continue
            if known := entries.get(entry.name):  # the other tool has an entry a tag
                entries[entry.name] = dataclasses.replace(known, tags=tuple(sorted({*known.tags, *entry.tags})))
                continue
            message = self.message(entry)
            files = _check_files(message.files)
            for file in files:
                self._check_blob(file)
            self._check_adapter(files, message.variant)
            if str(Sha256(manifest_of(config_of(message.variant), files))) != entry.digest:
                text = f"The manifest of {entry.name} is not written as a model registry writes it"
                raise DataLoss(f"{text}: take it out of {self._index.path}, or import the model instead.")
            latest = max((other.create_time for other in entries.values()), default=entry.create_time)
            time = max(entry.create_time, latest + timedelta(microseconds=1))
            entries[entry.name] = dataclasses.replace(entry, create_time=time, copied=False)
            log.info("Took over %s, which another tool has copied here.", entry.name)
        self._index.replace(entries.values())

    def _exchange(self, old: Entry, new: Entry) -> Entry:
        self._index.replace(new if entry is old else entry for entry in self._index.entries)
        return new

    def _check_adapter(self, files: Sequence[model_pb2.File], variant: str) -> None:
        """Raises InvalidRequest for an adapter that has other files, or is for another variant, than it says."""
        by_path = {file.path: file for file in files}
        if ADAPTER_FILE not in by_path:
            return
        if by_path.keys() != {ADAPTER_FILE, WEIGHTS_FILE}:
            text = f"An adapter has the files {ADAPTER_FILE} and {WEIGHTS_FILE}, this one {', '.join(by_path)}."
            raise InvalidRequest(text, field="files", reason=Reason.FORBIDDEN_FILE)
        adapter = Adapter.from_json(self._blobs.path(by_path[ADAPTER_FILE].digest).read_bytes())
        if adapter.base_variant != variant:
            text = f"variant is {variant}, and {ADAPTER_FILE} says {adapter.base_variant}: publish it for that one."
            raise InvalidRequest(text, field="variant")

    def _check_blob(self, file: model_pb2.File) -> None:
        size = self._blobs.size(file.digest)
        if size is None:
            text = f"{file.path} ({file.digest}) has not been pushed: push it, then publish."
            raise FailedPrecondition(text, reason=Reason.BLOB_MISSING)
        if size != file.size_bytes:
            text = f"{file.path} is declared with {file.size_bytes} bytes, its blob has {size}."
            raise InvalidRequest(text, field="files")
        check_content(file.path, self._blobs.path(file.digest))

    def _blobs_of(self, entry: Entry) -> set[str]:
        manifest = self._read(entry, entry.digest, "manifest")
        return {entry.digest, config_digest(manifest), *(file.digest for file in files_of(manifest))}

    def _read(self, entry: Entry, digest: str, what: str) -> dict[str, Any]:
        """Reads a small JSON blob and checks its digest."""
        try:
            content = self._blobs.path(digest).read_bytes()
            actual = str(Sha256(content))
        except FileNotFoundError:
            actual = ""
        if actual != digest:
            text = f"The {what} of {entry.name} is {f'damaged: its digest is {actual}' if actual else 'gone'}"
            raise DataLoss(
                f"{text}. Import the model again, or delete the version.",
                reason=Reason.DIGEST_MISMATCH,
                metadata={"expected": digest, "actual": actual},
            )
        value: dict[str, Any] = json.loads(content)
        return value


def _without_tags(entry: Entry, tags: Sequence[str]) -> Entry:
    return dataclasses.replace(entry, tags=tuple(tag for tag in entry.tags if tag not in tags))


def _check_files(files: Sequence[model_pb2.File]) -> list[model_pb2.File]:
    """The files by path."""
    if not files:
        raise InvalidRequest("files is empty: a version has at least one file.", field="files")
    for file in files:
        check_path(file.path)
        check_digest(file.digest, "files.digest")
    ordered = sorted(files, key=lambda file: file.path)
    for first, second in itertools.pairwise(ordered):
        if first.path == second.path:
            raise InvalidRequest(f"files has {first.path} twice.", field="files")
        if second.path == first.path + ".pack":
            raise InvalidRequest(f"files has {first.path} both plain and packed.", field="files")
    folders = {str(folder) for file in files for folder in PurePosixPath(file.path).parents}
    for file in ordered:
        if file.path in folders:
            raise InvalidRequest(f"files has {file.path} and files below it.", field="files")
    return ordered
