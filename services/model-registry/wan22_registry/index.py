"""`index.json` of the layout, the one truth about which versions there are; it changes by one rename."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from wan22.durable_files import replace_file
from wan22.errors import DataLoss, InvalidRequest
from wan22.manifest import ARTIFACT_TYPE, MANIFEST_TYPE, canonical_json
from wan22.names import VersionName, VersionReference

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
LAYOUT = {"imageLayoutVersion": "1.0.0"}
REF_NAME = "org.opencontainers.image.ref.name"
CREATED = "org.opencontainers.image.created"
MODEL, TAGS, PINNED = "dev.wan22.model", "dev.wan22.tags", "dev.wan22.pinned"
APPROVED = "dev.wan22.approved"


@dataclass(frozen=True)
class Entry:
    """One version in the index."""

    model: str
    digest: str
    manifest_size: int
    create_time: datetime
    tags: tuple[str, ...] = ()
    pinned: bool = False
    approved: bool = False
    """Of an adapter: whether requests may use it."""
    copied: bool = False
    """Another tool has put it here, and it has not been checked."""

    @property
    def name(self) -> VersionName:
        """models/{model}/versions/{digest}."""
        return VersionName(self.model, self.digest)

    def to_descriptor(self) -> dict[str, Any]:
        """The OCI descriptor, with what is ours as annotations."""
        annotations = {
            MODEL: self.model,
            TAGS: ",".join(self.tags),
            PINNED: str(self.pinned).lower(),
            CREATED: self.create_time.isoformat().replace("+00:00", "Z"),
        }
        if self.approved:
            annotations[APPROVED] = "true"
        if self.tags:
            annotations[REF_NAME] = f"{self.model}:{self.tags[0]}"  # what skopeo and its like find it by
        return {
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "digest": self.digest,
            "size": self.manifest_size,
            "annotations": annotations,
        }

    @classmethod
    def from_descriptor(cls, descriptor: dict[str, Any]) -> Entry:
        """Raises KeyError, TypeError, AttributeError or ValueError for a descriptor that is not ours."""
        notes = descriptor["annotations"]
        if MODEL not in notes:  # a tool has copied the version here, and kept what OCI knows
            wanted = VersionReference.parse(notes[REF_NAME])
            tags = (wanted.tag,) if wanted.tag else ()
            return cls(wanted.model, descriptor["digest"], descriptor["size"], datetime.now(UTC), tags, copied=True)
        return cls(
            model=notes[MODEL],
            digest=descriptor["digest"],
            manifest_size=descriptor["size"],
            create_time=datetime.fromisoformat(notes[CREATED]).astimezone(UTC),
            tags=tuple(tag for tag in notes[TAGS].split(",") if tag),
            pinned=notes[PINNED] == "true",
            approved=notes.get(APPROVED) == "true",
        )


class Index:
    """The entries, oldest first, in memory as on disk."""

    def __init__(self, root: Path) -> None:
        """Reads an index or starts an empty layout. Raises DataLoss when the files are damaged or not ours."""
        self.path = root / "index.json"
        layout = root / "oci-layout"
        if not layout.exists():
            replace_file(layout, canonical_json(LAYOUT))
        if _read_json(layout) != LAYOUT:
            raise DataLoss(f"{layout} does not say {json.dumps(LAYOUT)}: use another --root, or restore the file.")
        self.entries: tuple[Entry, ...] = ()
        if self.path.exists():
            index = _read_json(self.path)
            try:
                self.entries = tuple(Entry.from_descriptor(descriptor) for descriptor in index["manifests"])
            except (AttributeError, InvalidRequest, KeyError, TypeError, ValueError) as error:
                text = f"{self.path} is not an index of this registry ({error!r}): restore it from a backup."
                raise DataLoss(text) from error

    def next_create_time(self) -> datetime:
        """Now, but later than that of every entry, so that the order of creation is one of time."""
        latest = max((entry.create_time for entry in self.entries), default=datetime.min.replace(tzinfo=UTC))
        return max(datetime.now(UTC), latest + timedelta(microseconds=1))

    def replace(self, entries: Iterable[Entry]) -> None:
        """Makes these the entries, durably and in one step."""
        entries = tuple(entries)
        index = {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": [entry.to_descriptor() for entry in entries],
        }
        replace_file(self.path, canonical_json(index))
        self.entries = entries


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise DataLoss(f"{path} is not JSON ({error}): restore it from a backup.") from error
