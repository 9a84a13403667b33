"""An image whose project is another version's, on the same dependencies: such as the release before."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from wan22_testing.images.archive import Image

REFERENCE = "org.opencontainers.image.ref.name"
TAR = "application/vnd.oci.image.layer.v1.tar"
OPAQUE = ".wh..wh..opq"
"""In a folder of a layer: what is below it in earlier layers is gone (OCI image specification, layer.md)."""


def write_with_packages(
    archive: Path, packages: Path, reference: str, made: Path, environment: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Writes an archive with a layer on top, in which a folder's packages stand for the project's own."""
    image = Image.read(archive)
    layer = _layer(_site(image), packages)
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = {**image.config}
    config["rootfs"] = {**config["rootfs"], "diff_ids": [*config["rootfs"]["diff_ids"], digest]}
    variables = [f"{name}={value}" for name, value in environment.items()]
    config["config"] = {**config["config"], "Env": [*config["config"].get("Env", []), *variables]}
    config["history"] = [*config.get("history", []), {"created_by": f"packages of {reference}"}]
    added = {"mediaType": TAR, "digest": digest, "size": len(layer)}
    described = _Blob(json.dumps(config).encode())
    manifest = {**image.manifest, "layers": [*image.manifest["layers"], added]}
    manifest["config"] = {**manifest["config"], **described.descriptor}
    manifested = _Blob(json.dumps(manifest).encode())
    entry = {"mediaType": manifest["mediaType"], **manifested.descriptor, "annotations": {REFERENCE: reference}}
    with tarfile.open(archive) as before, tarfile.open(made, "w") as after:
        for member in before:
            if member.isfile() and member.name.removeprefix("./") != "index.json":
                after.addfile(member, before.extractfile(member))
        for content in (layer, described.content, manifested.content):
            _add(after, _Blob(content).path, content)
        _add(after, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())


@dataclass(frozen=True)
class _Blob:
    content: bytes

    @property
    def path(self) -> str:
        return f"blobs/sha256/{hashlib.sha256(self.content).hexdigest()}"

    @property
    def descriptor(self) -> dict[str, Any]:
        return {"digest": f"sha256:{hashlib.sha256(self.content).hexdigest()}", "size": len(self.content)}


def _site(image: Image) -> str:
    """Where the project's packages are in the image."""
    mark = "/site-packages/wan22/__init__.py"
    found = [entry.name for entry in image.entries() if entry.name.endswith(mark)]
    if not found:
        raise FileNotFoundError(f"{image.archive} holds no package wan22.")
    return found[-1].removesuffix("/wan22/__init__.py")


def _layer(site: str, packages: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for package in sorted(path for path in packages.iterdir() if (path / "__init__.py").is_file()):
            _add(tar, f"{site}/{package.name}/{OPAQUE}", b"")
            for file in sorted(path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"):
                _add(tar, f"{site}/{file.relative_to(packages)}", file.read_bytes())
    return content.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
