"""An image of two layers, made here byte by byte."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from wan22_testing.images.archive import Image

SITE = "opt/wan22/lib/python3.11/site-packages"
METADATA = """Metadata-Version: 2.4
Name: {name}
Version: {version}
License-Expression: Apache-2.0
{needs}
"""
NEEDS = "Requires-Dist: Other_Package>=1\nRequires-Dist: not-here; extra == 'more'"
DPKG = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
LABELS = {"org.opencontainers.image.created": "2026-03-01T08:00:00Z", "org.opencontainers.image.version": "1.2.3"}
OCI = "application/vnd.oci.image"


def tar(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            file = tarfile.TarInfo(name)
            file.size = len(content)
            archive.addfile(file, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture
def image(tmp_path: Path) -> Image:
    first = METADATA.format(name="first", version="1.0", needs=NEEDS).encode()
    other = METADATA.format(name="other.package", version="2.0", needs="Requires-Dist: absent").encode()
    files = [
        tar({"var/lib/dpkg/status": DPKG.encode(), "etc/passwd": b"root"}),
        tar({f"{SITE}/first-1.0.dist-info/METADATA": first, f"{SITE}/other_package-2.0.dist-info/METADATA": other}),
    ]
    blobs: dict[str, bytes] = {}

    def keep(media_type: str, blob: bytes) -> dict[str, object]:
        digest = hashlib.sha256(blob).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = blob
        return {"mediaType": f"{OCI}.{media_type}", "digest": f"sha256:{digest}", "size": len(blob)}

    layers = [keep("layer.v1.tar+gzip", gzip.compress(layer, mtime=0)) for layer in files]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": LABELS},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in files]},
    }
    manifest = {"schemaVersion": 2, "config": keep("config.v1+json", json.dumps(config).encode()), "layers": layers}
    index = {"schemaVersion": 2, "manifests": [keep("manifest.v1+json", json.dumps(manifest).encode())]}
    parts = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode(), **blobs}
    archive = tmp_path / "image.tar"
    archive.write_bytes(tar(parts))
    return Image.read(archive)
