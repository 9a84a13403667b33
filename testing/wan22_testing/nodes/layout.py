"""Where the parts of the cluster lie and how they are called and addressed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from wan22_testing.cluster.programs import Programs

CONTROL_NETWORK = "wan22"
CONTROL_ADDRESS = "10.89.0.1"
POD_ADDRESSES = "10.88.0.0/16"
DNS_ADDRESS = "10.96.0.10"
"""Of the Service; within the control plane's service addresses."""
DOMAIN = "cluster.local"
NODES = (1, 2)


@dataclass(frozen=True)
class NodePlace:
    """One node: a network namespace of its own, with an address and a range of addresses for its pods."""

    root: Path
    number: int

    @property
    def name(self) -> str:
        """As the cluster knows it."""
        return f"node{self.number}"

    @property
    def network(self) -> str:
        """Its network namespace."""
        return f"{CONTROL_NETWORK}-{self.name}"

    @property
    def address(self) -> str:
        """Where its kubelet answers."""
        return f"10.89.0.{10 + self.number}"

    @property
    def pods(self) -> str:
        """The addresses of its pods."""
        return f"10.88.{self.number}.0/24"

    @property
    def folder(self) -> Path:
        """What outlives a crash of it: images, containers' disks, volumes; and logs."""
        return self.root / self.name

    @property
    def disks(self) -> Path:
        """Folders that are local volumes."""
        return self.folder / "disks"


@dataclass(frozen=True)
class Layout:
    """One cluster in a folder."""

    root: Path

    @classmethod
    def usual(cls) -> Layout:
        """The folder of `make cluster-up`, outside the tree."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cls(cache / "wan22" / "cluster")

    @property
    def control(self) -> Path:
        """The control plane's folder, with certificates and kubeconfigs."""
        return self.root / "control"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, for any program on this machine."""
        return self.root / "kubeconfig"

    @property
    def pause(self) -> Path:
        """The image of what holds a pod's namespaces."""
        return self.root / "pause.tar"

    @property
    def nodes(self) -> list[NodePlace]:
        """All of them."""
        return [NodePlace(self.root, number) for number in NODES]

    def node(self, name: str) -> NodePlace:
        """One by its name."""
        return next(place for place in self.nodes if place.name == name)

    def kubeconfig_of(self, user: str) -> Path:
        """That of a program of the cluster, which the control plane writes when it starts."""
        return self.control / f"{user}.kubeconfig"


def node_programs() -> Programs:
    """What `make node-bin` builds."""
    return Programs(Programs.find().folder / "node")
