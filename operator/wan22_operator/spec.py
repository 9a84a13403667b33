"""What a WanPool asks for, as the operator reads it; fields that it does not know are left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from wan22_operator.names import PoolKey
from wan22_operator.resources import WAN_POOL


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolSpec:
    """One WanPool, its defaults filled in by the API server, or here where an older CRD has none."""

    key: PoolKey
    uid: str
    generation: int
    resource_version: str
    model: str
    image: str | None
    distilled: bool
    default_for_variant: bool
    paused: bool
    drain_seconds: int
    replicas: int | None
    precision: str | None
    vram_limit: str | None
    gpus: int
    cache: Mapping[str, Any]
    resources: Mapping[str, Any]
    trigger: str
    max_unavailable: int | str
    external: bool
    minimum: int
    maximum: int
    objective_seconds: float
    idle_hold_seconds: float | None
    scheduling: Mapping[str, Any]

    @staticmethod
    def parse(manifest: Mapping[str, Any]) -> PoolSpec:
        """Reads one that the API server has validated."""
        meta, spec = manifest["metadata"], manifest["spec"]
        engine, scaling, update = spec.get("engine", {}), spec.get("scaling", {}), spec.get("update", {})
        vram, hold = engine.get("vramLimit"), scaling.get("idleHoldSeconds")
        return PoolSpec(
            key=PoolKey.of(manifest),
            uid=meta["uid"],
            generation=meta.get("generation", 0),
            resource_version=meta["resourceVersion"],
            model=spec["model"],
            image=spec.get("image"),
            distilled=spec.get("distilled", False),
            default_for_variant=spec.get("defaultForVariant", False),
            paused=spec.get("paused", False),
            drain_seconds=spec.get("drainSeconds", 600),
            replicas=spec.get("replicas"),
            precision=engine.get("precision"),
            vram_limit=None if vram is None else str(vram),
            gpus=engine.get("gpusPerWorker", 1),
            cache=spec.get("cache", {}),
            resources=spec.get("resources", {}),
            trigger=update.get("trigger", "OnIdle"),
            max_unavailable=update.get("maxUnavailable", 1),
            external=scaling.get("mode", "Operator") == "External",
            minimum=scaling.get("minReplicas", 0),
            maximum=scaling.get("maxReplicas", 1),
            objective_seconds=float(scaling.get("objectiveSeconds", 120)),
            idle_hold_seconds=None if hold is None else float(hold),
            scheduling=spec.get("scheduling", {}),
        )

    @property
    def reference(self) -> dict[str, Any]:
        """The owner reference of the pool's objects, by which they go with it; it blocks no deletion."""
        return {
            "apiVersion": WAN_POOL.api_version,
            "kind": WAN_POOL.kind,
            "name": self.key.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }

    @property
    def external_replicas(self) -> int:
        """What `spec.replicas` asks for in mode External."""
        wanted = self.minimum if self.replicas is None else self.replicas
        return min(max(wanted, self.minimum), self.maximum)

    def unavailable(self, wanted: int) -> int:
        """How many workers of those wanted may be missing during an update."""
        if isinstance(self.max_unavailable, int):
            return self.max_unavailable
        return max(1, ceil(int(self.max_unavailable.rstrip("%")) * wanted / 100))
