"""An image of two layers, made here byte by byte, and what is said to be in it."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from cyclonedx.validation.json import JsonStrictValidator

from wan22_testing.images.archive import Image
from wan22_testing.images.bill_of_materials import SCHEMA, bill_of_materials

SITE = "opt/wan22/lib/python3.11/site-packages"
METADATA = """Metadata-Version: 2.4
Name: {name}
Version: {version}
License-Expression: Apache-2.0
{needs}
"""


def layer(files: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            file = tarfile.TarInfo(name)
            file.size = len(content.encode())
            tar.addfile(file, io.BytesIO(content.encode()))
    return gzip.compress(packed.getvalue(), mtime=0)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    needs = "Requires-Dist: Other_Package>=1\nRequires-Dist: not-here; extra == 'more'"
    dpkg = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9\n\n"
    dpkg += "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n"
    layers = [
        layer({"var/lib/dpkg/status": dpkg, "etc/passwd": "root"}),
        layer(
            {
                f"{SITE}/first-1.0.dist-info/METADATA": METADATA.format(name="first", version="1.0", needs=needs),
                f"{SITE}/other_package-2.0.dist-info/METADATA": METADATA.format(
                    name="other.package", version="2.0", needs="Requires-Dist: absent"
                ),
            }
        ),
    ]
    created = {"org.opencontainers.image.created": "2026-03-01T08:00:00Z", "org.opencontainers.image.version": "1.2.3"}
    config = json.dumps({"config": {"Labels": created}}).encode()
    blobs = {f"sha256:{hashlib.sha256(blob).hexdigest()}": blob for blob in (*layers, config)}
    digests = list(blobs)
    manifest = json.dumps(
        {
            "config": {"digest": digests[2]},
            "layers": [{"digest": digest, "size": len(blob)} for digest, blob in zip(digests[:2], layers, strict=True)],
        }
    ).encode()
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    blobs[digest] = manifest
    index = json.dumps({"manifests": [{"digest": digest}]}).encode()
    archive = tmp_path / "image.tar"
    with tarfile.open(archive, "w") as tar:
        for name, blob in {"index.json": index, **blobs}.items():
            file = tarfile.TarInfo(f"blobs/{name.replace(':', '/')}" if ":" in name else name)
            file.size = len(blob)
            tar.addfile(file, io.BytesIO(blob))
    return Image.read(archive)


def test_an_images_size_is_that_of_its_layers_packed_and_of_its_files_unpacked(image: Image) -> None:
    assert image.packed_bytes == sum(layer["size"] for layer in image.manifest["layers"])
    assert image.unpacked_bytes() == sum(len(content) for _, content in image.files(lambda _: True))


def test_a_list_names_the_packages_of_python_and_of_debian_and_is_cyclonedx(image: Image) -> None:
    text = bill_of_materials(image, "example.com/wan22/gateway")
    assert JsonStrictValidator(SCHEMA).validate_str(text) is None
    bom = json.loads(text)
    assert {component["purl"] for component in bom["components"]} == {
        "pkg:pypi/first@1.0",
        "pkg:pypi/other-package@2.0",
        "pkg:deb/debian/libc6@2.36-9?arch=amd64",
    }
    assert bom["metadata"]["component"]["hashes"] == [
        {"alg": "SHA-256", "content": image.digest.removeprefix("sha256:")}
    ]
    assert bom["metadata"]["timestamp"].startswith("2026-03-01T08:00:00")
    (first,) = [component for component in bom["components"] if component["name"] == "first"]
    assert first["licenses"] == [{"license": {"acknowledgement": "declared", "id": "Apache-2.0"}}]


def test_a_list_says_what_a_package_needs_always(image: Image) -> None:
    bom = json.loads(bill_of_materials(image, "example.com/wan22/gateway"))
    edges = {entry["ref"]: entry.get("dependsOn", []) for entry in bom["dependencies"]}
    assert edges["pkg:pypi/first@1.0"] == ["pkg:pypi/other-package@2.0"]
    assert edges["pkg:pypi/other-package@2.0"] == []


def test_the_same_image_gives_the_same_list(image: Image) -> None:
    assert bill_of_materials(image, "gateway") == bill_of_materials(image, "gateway")
