"""What the operator's objects are called, and the labels by which they are found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PART_OF = "app.kubernetes.io/part-of"
COMPONENT = "app.kubernetes.io/component"
MANAGED_BY = "app.kubernetes.io/managed-by"
POOL = "wan22.dev/pool"
REVISION = "wan22.dev/revision"
OURS = f"{MANAGED_BY}=wan22-operator"
"""Selects all that the operator has made."""
WORKER_PORT = 50061
WORKER_HEALTH_PORT = 51061
GATEWAY, REGISTRY, NODE_CACHE, WORKER = "gateway", "registry", "node-cache", "worker"
"""Values of the label `component`; the chart labels its pods by them."""


@dataclass(frozen=True, slots=True, order=True)
class PoolKey:
    """A WanPool's, or a WanModel's, namespace and name."""

    namespace: str
    name: str

    @staticmethod
    def of(manifest: Mapping[str, Any]) -> PoolKey:
        """An object's own."""
        return PoolKey(manifest["metadata"]["namespace"], manifest["metadata"]["name"])

    @staticmethod
    def of_part(manifest: Mapping[str, Any]) -> PoolKey:
        """The pool's that an object belongs to, by its label."""
        return PoolKey(manifest["metadata"]["namespace"], manifest["metadata"]["labels"][POOL])

    @property
    def pool(self) -> str:
        """The gateway's name of the pool."""
        return f"pools/{self.namespace}.{self.name}"

    @property
    def objects(self) -> str:
        """Name of the pool's Service, NetworkPolicy and ServiceAccount; of no use to anything else."""
        return f"{self.name}-workers"

    def worker(self, ordinal: int) -> str:
        """Name of the pod of a worker."""
        return f"{self.name}-{ordinal}"

    def labels(self) -> dict[str, str]:
        """Of all objects of the pool."""
        return {MANAGED_BY: "wan22-operator", PART_OF: "wan22", COMPONENT: WORKER, POOL: self.name}

    @property
    def selector(self) -> str:
        """Label selector of the workers' pods."""
        return f"{COMPONENT}={WORKER},{POOL}={self.name}"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def ordinal_of(worker: str) -> int | None:
    """The number in a worker's name, if it has one."""
    number = worker.rpartition("-")[2]
    return int(number) if number.isascii() and number.isdigit() else None
