"""The archives that `make images` has left in build/images."""

import json
from dataclasses import dataclass
from pathlib import Path
from tarfile import TarInfo
from typing import Any

import pytest

from wan22_testing.images.archive import Image

BUILT = Path(__file__).parents[2] / "build" / "images"
TARGETS = ("gateway", "registry", "operator", "worker", "simulated-worker")
COMPILERS = {"gcc", "cc", "clang", "tcc", "as", "ld", "c++", "g++"}

pytestmark = pytest.mark.node


@dataclass(frozen=True)
class Built:
    target: str
    config: dict[str, Any]
    files: list[TarInfo]


@pytest.fixture(scope="module", params=TARGETS)
def built(request: pytest.FixtureRequest) -> Built:
    archive = BUILT / f"{request.param}.tar"
    if not archive.exists():
        pytest.skip(f"{request.param} is not built: make images IMAGES={request.param}")
    image = Image.read(archive)
    return Built(request.param, image.config["config"], list(image.entries()))


def test_an_image_runs_as_user_65532_and_keeps_nothing_of_its_making(built: Built) -> None:
    assert built.config["User"] == "65532:65532"
    assert built.config["Entrypoint"][:2] == ["python", "-m"]
    paths = {file.name for file in built.files}
    assert "opt/wan22/bin/wan22" in paths
    assert [path for path in paths if "/site-packages/pip/" in path or path.startswith(("root/.cache", "build"))] == []
    assert [path for path in paths if "/wan22_testing/weights" in path] == []
    assert [path for path in paths if path.startswith(("var/lib/apt/lists/", "run/secrets/"))] == []
    assert [path for path in paths if path.startswith("usr/bin/") and Path(path).name in COMPILERS] == []


def test_nothing_in_an_image_may_be_written_by_all_or_by_its_user(built: Built) -> None:
    files = [file for file in built.files if file.isfile() or file.isdir()]
    assert [file.name for file in files if 65532 in {file.uid, file.gid}] == []
    assert [file.name for file in files if file.mode & 0o002 and not file.mode & 0o1000] == []


def test_an_image_holds_no_devices(built: Built) -> None:
    assert [file.name for file in built.files if file.isdev()] == []


def test_a_service_without_a_model_holds_no_torch(built: Built) -> None:
    bom = json.loads((BUILT / f"{built.target}.cdx.json").read_text())
    names = {component["name"] for component in bom["components"] if component["purl"].startswith("pkg:pypi/")}
    assert {"wan22", "grpcio"} <= names
    assert "pip" not in names
    if built.target == "worker":
        assert "torch" in names
    else:
        assert {name for name in names if name in {"torch", "triton"} or name.startswith("nvidia-")} == set()
