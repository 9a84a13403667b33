"""The images that the cluster runs: archives that are loaded into an own one, or what a registry has."""

from __future__ import annotations

import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUILT = Path(__file__).parents[2] / "build/images"
SERVICES = ("gateway", "registry", "operator", "simulated-worker")
WORKER = "worker"
"""A real one; not among those that every test needs, since it is large."""
REFERENCE = "org.opencontainers.image.ref.name"


@dataclass(frozen=True)
class Images:
    """Images of one version: REPOSITORY/NAME:TAG."""

    repository: str
    tag: str
    pull_policy: str

    @classmethod
    def in_registry(cls) -> Images | None:
        """Those that WAN22_TEST_IMAGES names as REPOSITORY:TAG, for a cluster that pulls."""
        repository, _, tag = os.environ.get("WAN22_TEST_IMAGES", "").rpartition(":")
        return cls(repository, tag, "IfNotPresent") if repository else None

    @classmethod
    def of_archives(cls, archives: dict[str, Path]) -> Images:
        """What the archives say that they are."""
        repository, _, rest = reference_of(archives["gateway"]).rpartition("/")
        return cls(repository, rest.partition(":")[2], "Never")

    def name(self, image: str) -> str:
        """One of them as a container's image."""
        return f"{self.repository}/{image}:{self.tag}"

    def values(self) -> dict[str, Any]:
        """The chart's values that name them."""
        image = {"repository": self.repository, "tag": self.tag, "pullPolicy": self.pull_policy}
        return {"image": image, "workers": {"image": self.name("simulated-worker")}}


def archives_in(folder: Path) -> dict[str, Path]:
    """The services' archives in a folder, by name; empty where one is missing."""
    found = {name: folder / f"{name}.tar" for name in SERVICES}
    return found if all(path.is_file() for path in found.values()) else {}


def reference_of(archive: Path) -> str:
    """What the image of an archive is called."""
    with tarfile.open(archive) as tar:
        index = tar.extractfile("index.json")
        if index is None:
            raise FileNotFoundError(f"{archive} is no OCI archive.")
        reference: str = json.load(index)["manifests"][0]["annotations"][REFERENCE]
        return reference
