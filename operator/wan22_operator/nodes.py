"""The cluster's nodes, listed once for all pools."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from wan22_operator.cluster import Cluster
from wan22_operator.resources import NODE

FRESH_SECONDS = 10.0
AGAIN_SECONDS = 1.0
"""How soon they are listed anew for a pod whose node is not among them: one that has just come is not lost."""


@dataclass(frozen=True, slots=True)
class Node:
    """What of a node matters here."""

    name: str
    ready: bool
    schedulable: bool
    labels: Mapping[str, str]
    allocatable: Mapping[str, str]

    @staticmethod
    def parse(manifest: Mapping[str, Any]) -> Node:
        """Reads a Node; without a Ready condition, or with one that is Unknown, it is not ready."""
        status, spec = manifest.get("status", {}), manifest.get("spec", {})
        ready = {condition["type"]: condition["status"] for condition in status.get("conditions", [])}.get("Ready")
        return Node(
            name=manifest["metadata"]["name"],
            ready=ready == "True",
            schedulable=not spec.get("unschedulable", False),
            labels=manifest["metadata"].get("labels", {}),
            allocatable=status.get("allocatable", {}),
        )

    def suits(self, selector: Mapping[str, str]) -> bool:
        """Whether it has all these labels, and may be given pods."""
        return self.ready and self.schedulable and all(self.labels.get(name) == selector[name] for name in selector)


class Nodes:
    """A list that is at most some seconds old."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lock = asyncio.Lock()
        self._listed: Mapping[str, Node] = {}
        self._time = -FRESH_SECONDS

    def forget(self) -> None:
        """Has the next one who asks list them anew."""
        self._time = -FRESH_SECONDS

    async def all(self, needed: Collection[str] = ()) -> Mapping[str, Node]:
        """By name; listed anew where one that is `needed` was not there. Raises ApiFailure."""
        async with self._lock:
            known = all(name in self._listed for name in needed)
            if time.monotonic() - self._time > (FRESH_SECONDS if known else AGAIN_SECONDS):
                nodes = [Node.parse(manifest) for manifest in await self._cluster.list(NODE)]
                self._listed, self._time = {node.name: node for node in nodes}, time.monotonic()
            return self._listed
