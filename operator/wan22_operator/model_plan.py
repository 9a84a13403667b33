"""What is to be done for one WanModel: a pure function of what its nodes' caches say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wan22.v1 import cache_pb2
from wan22_operator.caches import NodeCache
from wan22_operator.condition import Condition, no, to_status, yes
from wan22_operator.models import Resolved
from wan22_operator.nodes import Node
from wan22_operator.times import text_of

STATES = {
    cache_pb2.CachedVersion.PENDING: "Waiting",
    cache_pb2.CachedVersion.PULLING: "Pulling",
    cache_pb2.CachedVersion.PRESENT: "Present",
    cache_pb2.CachedVersion.FAILED: "Failed",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelPlan:
    """What status is to say, and which caches are asked for what."""

    status: dict[str, Any]
    fetch: tuple[NodeCache, ...] = ()
    """To be asked for the version."""
    let_go: tuple[NodeCache, ...] = ()
    """To be let evict it, since others need the room and it is not pinned."""
    busy: bool = False
    """Something is on its way."""


def model_plan(
    manifest: Mapping[str, Any],
    resolved: Resolved | None,
    error: str | None,
    caches: Sequence[NodeCache],
    nodes: Mapping[str, Node],
    now: float,
) -> ModelPlan:
    """Decides for one WanModel as the API server has it."""
    spec, before = manifest["spec"], manifest.get("status", {})
    selector = spec.get("nodeSelector", {})
    wanted = [cache for cache in caches if cache.node in nodes and _is_meant(nodes[cache.node], selector)]
    version = resolved.name if resolved is not None else before.get("modelVersion", "")
    size = resolved.size_bytes if resolved is not None else before.get("sizeBytes", 0)
    pinned = spec.get("pinned", False)
    crowded = [] if pinned or not version else [cache for cache in wanted if _is_crowded(cache, version, size)]
    known = {node["name"]: node for node in before.get("nodes", [])}
    said = [
        _node(cache, version, known.get(cache.node, {}), now, crowded=cache in crowded) for cache in wanted if version
    ]
    present = sum(node["state"] == "Present" for node in said)
    conditions = _conditions(spec["model"], resolved, error, said, present)
    generation = manifest["metadata"].get("generation", 0)
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "conditions": to_status(conditions, before.get("conditions", []), generation, now),
        "nodesWanted": len(wanted),
        "nodesPresent": present,
        "nodes": said,
    }
    if version:
        status |= {"modelVersion": version, "sizeBytes": size}
    missing = [
        cache
        for cache in wanted
        if version and cache not in crowded and not cache.error and version not in cache.versions
    ]
    held = [cache for cache in crowded if version in cache.versions]
    busy = bool(missing) or any(node["state"] in {"Waiting", "Pulling"} for node in said)
    return ModelPlan(status=status, fetch=tuple(missing), let_go=tuple(held), busy=busy)


def _is_meant(node: Node, selector: Mapping[str, str]) -> bool:
    return all(node.labels.get(label) == value for label, value in selector.items())


def _is_crowded(cache: NodeCache, version: str, size: int) -> bool:
    """Whether the room of a version that is not pinned is needed by others, or is not there for it."""
    if cache.quota_bytes is None or cache.error:
        return False
    unfinished = {cache_pb2.CachedVersion.PENDING, cache_pb2.CachedVersion.PULLING, cache_pb2.CachedVersion.FAILED}
    coming = sum(
        max(one.size_bytes - one.done_bytes, 0)
        for name, one in cache.versions.items()
        if name != version and one.state in unfinished
    )
    kept = sum(one.done_bytes for one in cache.versions.values())
    if version in cache.versions:
        return kept + coming > cache.quota_bytes
    return kept + coming + size > cache.quota_bytes


def _node(cache: NodeCache, version: str, before: Mapping[str, Any], now: float, *, crowded: bool) -> dict[str, Any]:
    said = cache.versions.get(version)
    node: dict[str, Any] = {"name": cache.node, "state": "Waiting"}
    if cache.error:
        node["reason"] = cache.error
    elif crowded:
        node["reason"] = "Other versions need the room, and this one is not pinned."
    elif said is not None:
        node["state"] = STATES.get(said.state, "Waiting")
        if said.size_bytes and node["state"] == "Pulling":
            node["percent"] = min(100, 100 * said.done_bytes // said.size_bytes)
        if said.reason:
            node["reason"] = said.reason
    stays = before.get("state") == node["state"] and "since" in before
    return {**node, "since": before["since"] if stays else text_of(now)}


def _conditions(
    model: str, resolved: Resolved | None, error: str | None, nodes: Sequence[Mapping[str, Any]], present: int
) -> list[Condition]:
    if resolved is None and not nodes:
        text = error or ""
        return [no("Ready", "ModelUnavailable", text), no("ModelResolved", "ModelUnavailable", text)]
    if resolved is None:
        known = no("ModelResolved", "ModelUnavailable", error or "")
    else:
        known = yes("ModelResolved", "Resolved", f"{model} is {resolved.name}.")
    failed = [node for node in nodes if node["state"] == "Failed"]
    if failed:
        text = (
            f"{len(failed)} of {len(nodes)} nodes cannot fetch it; {failed[0]['name']}: {failed[0].get('reason', '')}"
        )
        return [no("Ready", "FetchFailed", text), known]
    if not nodes:
        return [no("Ready", "NoNode", "No node with a cache has the labels of nodeSelector."), known]
    if present < len(nodes):
        return [no("Ready", "Fetching", f"{present} of {len(nodes)} nodes hold it."), known]
    return [yes("Ready", "Present", f"All {present} nodes hold it."), known]
