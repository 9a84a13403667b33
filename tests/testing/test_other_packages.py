from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from wan22_testing.images.archive import Image
from wan22_testing.images.other_packages import write_with_packages

SITE = "opt/wan22/lib/python3.11/site-packages"


def blob(tar: tarfile.TarFile, content: bytes) -> dict[str, object]:
    digest = hashlib.sha256(content).hexdigest()
    add(tar, f"blobs/sha256/{digest}", content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An image with a package wan22 of one module."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        add(tar, f"{SITE}/wan22/__init__.py", b"new")
    path = tmp_path / "image.tar"
    with tarfile.open(path, "w") as tar:
        layers = [blob(tar, layer.getvalue())]
        config = {"config": {"Env": ["A=1"]}, "rootfs": {"type": "layers", "diff_ids": [layers[0]["digest"]]}}
        kind = "application/vnd.oci.image.manifest.v1+json"
        manifest = {"mediaType": kind, "config": blob(tar, json.dumps(config).encode()), "layers": layers}
        described = blob(tar, json.dumps(manifest).encode())
        add(tar, "index.json", json.dumps({"manifests": [{"mediaType": kind, **described}]}).encode())
    return path


def test_the_packages_take_the_place_of_the_projects(archive: Path, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    (packages / "wan22").mkdir(parents=True)
    (packages / "wan22/__init__.py").write_text("old")
    made = tmp_path / "made.tar"
    write_with_packages(archive, packages, "localhost/wan22/one:v0", made, {"B": "2"})
    image = Image.read(made)
    found = [(file.name, content) for file, content in image.files(lambda name: name.startswith(SITE))]
    assert found == [
        (f"{SITE}/wan22/__init__.py", b"new"),
        (f"{SITE}/wan22/.wh..wh..opq", b""),
        (f"{SITE}/wan22/__init__.py", b"old"),
    ]
    assert image.config["config"]["Env"] == ["A=1", "B=2"]
    assert image.config["rootfs"]["diff_ids"][-1] == image.manifest["layers"][-1]["digest"]
    with tarfile.open(made) as tar:
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
    assert index["manifests"][0]["annotations"] == {"org.opencontainers.image.ref.name": "localhost/wan22/one:v0"}
    assert index["manifests"][0]["digest"] == image.digest


def test_an_image_without_the_project_is_refused(archive: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.tar"
    with tarfile.open(archive) as before, tarfile.open(empty, "w") as after:
        for member in before:
            if member.name == "index.json":
                index = json.load(before.extractfile(member))  # type: ignore[arg-type]
        config = blob(after, json.dumps({"config": {}, "rootfs": {"diff_ids": []}}).encode())
        manifest = blob(after, json.dumps({"config": config, "layers": []}).encode())
        index["manifests"] = [manifest]
        add(after, "index.json", json.dumps(index).encode())
    with pytest.raises(FileNotFoundError, match="holds no package wan22"):
        write_with_packages(empty, tmp_path, "one:1", tmp_path / "made.tar")
