"""An image of a few static programs and nothing else, as an archive that containerd takes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PROGRAM_MODE = 0o755


def write_image(
    archive: Path, tag: str, files: Mapping[str, Path], *, entrypoint: Sequence[str], user: str = ""
) -> None:
    """Writes a docker archive with one layer; `files` are programs by their absolute path in the image.

    Without a user they run as root. Source: https://github.com/moby/docker-image-spec/blob/main/spec.md
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name, source in files.items():
            _add(tar, name.lstrip("/"), source.read_bytes())
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint), "User": user},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getbuffer()).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, mode="w") as tar:
        _add(tar, "layer.tar", layer.getvalue())
        _add(tar, "config.json", json.dumps(config).encode())
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = PROGRAM_MODE
    tar.addfile(entry, io.BytesIO(content))
