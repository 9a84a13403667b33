"""Reads an image's OCI archive, without anything that can run it."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Image:
    """One image of one archive."""

    archive: Path
    digest: str
    """Of its manifest: what a registry names it by."""
    manifest: dict[str, Any]
    config: dict[str, Any]

    @classmethod
    def read(cls, archive: Path) -> Image:
        """Reads an archive with one image in it."""
        with tarfile.open(archive) as tar:
            (entry,) = _json(tar, "index.json")["manifests"]
            manifest = _json(tar, _blob(entry["digest"]))
            return cls(archive, entry["digest"], manifest, _json(tar, _blob(manifest["config"]["digest"])))

    @property
    def packed_bytes(self) -> int:
        """What a node pulls that has none of its layers."""
        return sum(int(layer["size"]) for layer in self.manifest["layers"])

    def files(self, wanted: Callable[[str], bool]) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        """Yields the files whose paths are `wanted`, layer after layer: of those with one path the last counts."""
        with tarfile.open(self.archive) as tar:
            for layer in self.manifest["layers"]:
                blob = tar.extractfile(_blob(layer["digest"]))
                with tarfile.open(fileobj=blob, mode="r|*") as files:
                    for file in files:
                        content = files.extractfile(file) if file.isfile() and wanted(file.name) else None
                        if content is not None:
                            yield file, content.read()

    def entries(self) -> Iterator[tarfile.TarInfo]:
        """Yields all files, folders and links, layer after layer."""
        with tarfile.open(self.archive) as tar:
            for layer in self.manifest["layers"]:
                with tarfile.open(fileobj=tar.extractfile(_blob(layer["digest"])), mode="r|*") as files:
                    yield from files

    def unpacked_bytes(self) -> int:
        """What its files take on a node."""
        return sum(file.size for file in self.entries())


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _json(tar: tarfile.TarFile, name: str) -> dict[str, Any]:
    file = tar.extractfile(name)
    if file is None:
        raise FileNotFoundError(f"{tar.name!s} holds no {name}: it is no OCI archive.")
    loaded: dict[str, Any] = json.load(file)
    return loaded
