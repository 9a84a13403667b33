"""Takes out of an archive what buildah writes anew in each build, so that the same content has the same digest."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

from wan22_testing.images.archive import Image

OF_ONE_BUILD = "org.opencontainers.image.base.digest"
"""With layers, buildah names by it its own step before, not the base."""


def settle(archive: Path, settled: Path) -> None:
    """Writes an archive without the ids of steps that only the builder knows: in the history's comments, and above."""
    image = Image.read(archive)
    config, manifest = image.config, image.manifest
    gone = {_blob(image.digest), _blob(manifest["config"]["digest"]), "index.json"}
    for step in config.get("history", []):
        step.pop("comment", None)
    manifest.get("annotations", {}).pop(OF_ONE_BUILD, None)
    with tarfile.open(archive) as tar, tarfile.open(settled, "w") as new:
        file = tar.extractfile("index.json")
        index = json.load(file) if file else {}
        manifest["config"] |= _put(new, config)
        index["manifests"][0] |= _put(new, manifest)
        _add(new, "index.json", _encoded(index))
        for member in tar:
            if member.isfile() and member.name not in gone:
                plain = tarfile.TarInfo(member.name)
                plain.size = member.size
                new.addfile(plain, tar.extractfile(member))


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _encoded(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _put(tar: tarfile.TarFile, value: object) -> dict[str, object]:
    """Adds a blob; returns its digest and size."""
    data = _encoded(value)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    _add(tar, _blob(digest), data)
    return {"digest": digest, "size": len(data)}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    file = tarfile.TarInfo(name)
    file.size = len(data)
    tar.addfile(file, io.BytesIO(data))
