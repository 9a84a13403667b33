from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from wan22.v1.cache_pb2 import CachedVersion
from wan22_operator.caches import NodeCache
from wan22_operator.model_plan import ModelPlan, model_plan
from wan22_operator.nodes import Node

from .observing import MODEL, NOW, VERSION
from .test_status import unknown

GIB = 1 << 30


def cache(name: str = "n1", quota: int | None = None, error: str = "", **versions: CachedVersion) -> NodeCache:
    named = {VERSION if key == "it" else key: version for key, version in versions.items()}
    return NodeCache(name, f"cache-{name}", "10.0.0.1:50053", named, error, quota_bytes=quota)


def version(state: Any, done: int = 0, size: int = 70 * GIB, reason: str = "") -> CachedVersion:
    return CachedVersion(version=VERSION, state=state, done_bytes=done, size_bytes=size, reason=reason)


def made(
    *caches: NodeCache, status: Any = None, model: Any = MODEL, error: str | None = None, **spec: Any
) -> ModelPlan:
    nodes = {one.node: Node(one.node, True, True, {"card": one.node}, {}) for one in caches}
    manifest = {"metadata": {"generation": 2}, "spec": {"model": "m:fp8", **spec}, "status": status or {}}
    return model_plan(manifest, model, error, caches, nodes, NOW)


def ready(plan: ModelPlan) -> tuple[str, str]:
    return next((one["status"], one["reason"]) for one in plan.status["conditions"] if one["type"] == "Ready")


def test_each_node_with_a_cache_is_asked_and_says_how_far_it_is() -> None:
    plan = made(
        cache("n1", it=version(CachedVersion.PRESENT)),
        cache("n2", it=version(CachedVersion.PULLING, done=35 * GIB)),
        cache("n3", it=version(CachedVersion.FAILED, reason="no room")),
        cache("n4"),
        cache("n5", error="away"),
    )
    said = {node["name"]: (node["state"], node.get("percent"), node.get("reason")) for node in plan.status["nodes"]}
    assert said == {
        "n1": ("Present", None, None),
        "n2": ("Pulling", 50, None),
        "n3": ("Failed", None, "no room"),
        "n4": ("Waiting", None, None),
        "n5": ("Waiting", None, "away"),
    }
    assert [one.node for one in plan.fetch] == ["n4"]
    assert (plan.status["nodesWanted"], plan.status["nodesPresent"]) == (5, 1)
    assert ready(plan) == ("False", "FetchFailed")


def test_the_selector_chooses_nodes() -> None:
    plan = made(cache("n1"), cache("n2"), nodeSelector={"card": "n2"})
    assert [one.node for one in plan.fetch] == ["n2"]
    nowhere = made(cache("n1"), nodeSelector={"card": "h200"})
    assert ready(nowhere) == ("False", "NoNode")


def test_what_is_not_pinned_gives_way_and_what_is_pinned_does_not() -> None:
    full: dict[str, Any] = {
        "it": version(CachedVersion.PRESENT, done=70 * GIB),
        "other": version(CachedVersion.PENDING, size=60 * GIB),
    }
    assert [one.node for one in made(cache(quota=100 * GIB, **full)).let_go] == ["n1"]
    assert made(cache(quota=100 * GIB, **full), pinned=True).let_go == ()
    assert made(cache(quota=140 * GIB, **full)).let_go == ()
    no_room = made(cache(quota=100 * GIB, other=version(CachedVersion.PRESENT, done=60 * GIB)))
    assert no_room.fetch == ()
    assert "need the room" in no_room.status["nodes"][0]["reason"]


def test_a_missing_tag_is_said_and_what_is_known_stays() -> None:
    plan = made(cache(), model=None, error="Waiting for model m:fp8: no such tag.")
    assert ready(plan) == ("False", "ModelUnavailable")
    kept = {"modelVersion": VERSION, "sizeBytes": 1}
    later = made(cache(it=version(CachedVersion.PRESENT)), model=None, error="away", status=kept)
    assert ready(later) == ("True", "Present")


def test_status_stays_the_same_while_nothing_changes_and_has_only_fields_of_the_crd() -> None:
    there = cache(it=version(CachedVersion.PRESENT))
    first = made(there)
    assert made(there, status=first.status).status == first.status
    crd = yaml.safe_load((Path(__file__).parents[2] / "helm/wan22/files/crds/wanmodels.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert unknown(first.status, schema) == []
