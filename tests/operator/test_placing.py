from __future__ import annotations

from dataclasses import replace
from typing import Any

from wan22.v1.cache_pb2 import CachedVersion
from wan22_operator.caches import NodeCache
from wan22_operator.nodes import Node
from wan22_operator.placing import fetching, gpus_in_use, places
from wan22_operator.record import State

from .observing import VERSION, demand, observed, planned, pool_spec, view

HOST = "kubernetes.io/hostname"


def cache(name: str, state: Any = None, **fields: Any) -> NodeCache:
    versions = {} if state is None else {VERSION: CachedVersion(version=VERSION, state=state, **fields)}
    return NodeCache(name, f"cache-{name}", "10.0.0.1:50053", versions)


def node(name: str, gpus: int = 2) -> Node:
    labels = {HOST: name, "zone": "z1" if name in "ab" else "z2"}
    return Node(name, ready=True, schedulable=True, labels=labels, allocatable={"nvidia.com/gpu": str(gpus)})


NODES = {name: node(name) for name in ("a", "b", "c")}


def chosen(
    *caches: NodeCache,
    used: dict[str, int] | None = None,
    count: int = 1,
    avoided: tuple[str, ...] = (),
    own: dict[str, int] | None = None,
    spread: tuple[dict[str, Any], ...] = (),
) -> list[str]:
    spec = replace(pool_spec(), scheduling={"topologySpreadConstraints": spread})
    found = places(spec, VERSION, caches, NODES, used or {}, avoided, own or {}, count)
    return [cache.node for cache in found]


def test_a_node_that_holds_the_model_comes_before_one_that_fetches_it_and_that_before_others() -> None:
    there, comes, empty = cache("a", CachedVersion.PRESENT), cache("b", CachedVersion.PULLING), cache("c")
    assert chosen(empty, comes, there, count=6) == ["a", "a", "b", "b", "c", "c"]
    assert chosen(empty, comes, there, used={"a": 2}) == ["b"]
    assert chosen(empty, comes, there, avoided=("a",)) == ["b"]


def test_among_equals_the_emptiest_node_is_taken_and_full_ones_never() -> None:
    assert chosen(cache("a"), cache("b"), used={"b": 1}) == ["a"]
    assert chosen(cache("a"), used={"a": 2}) == []


def test_workers_are_spread_as_the_pool_asks_although_each_is_tied_to_a_node() -> None:
    caches = cache("a", CachedVersion.PRESENT), cache("b", CachedVersion.PRESENT), cache("c")
    hard = {"topologyKey": HOST, "whenUnsatisfiable": "DoNotSchedule"}
    assert chosen(*caches, count=4, spread=(hard,)) == ["b", "a", "c", "b"]
    assert chosen(*caches, own={"a": 1, "b": 1}, spread=(hard,)) == ["c"]
    assert chosen(*caches, own={"a": 1, "b": 1}, avoided=("c",), spread=(hard,)) == []
    assert chosen(*caches, own={"a": 1, "b": 1}, spread=({**hard, "maxSkew": 2},)) == ["b"]
    zones = {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    assert chosen(*caches, count=3, spread=(zones,)) == ["b", "c", "a"]
    assert chosen(*caches, spread=({**hard, "topologyKey": "rack"},)) == []


def test_a_spread_that_is_only_wished_for_gives_way_to_the_model() -> None:
    caches = cache("a", CachedVersion.PRESENT), cache("b", CachedVersion.PRESENT), cache("c")
    wish = {"topologyKey": HOST}
    assert chosen(*caches, own={"b": 1, "a": 0}, spread=(wish,)) == ["a"]
    assert chosen(*caches, count=4, spread=(wish,)) == ["b", "a", "b", "a"]


def test_pods_count_where_they_are_bound_or_tied_to() -> None:
    limits = {"containers": [{"resources": {"limits": {"nvidia.com/gpu": 1}}}]}
    field = {"key": "metadata.name", "operator": "In", "values": ["b"]}
    required = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    tied = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    pods: list[dict[str, Any]] = [{"spec": {**limits, "nodeName": "a"}}, {"spec": {**limits, "affinity": tied}}]
    pods.append({"spec": {**limits, "nodeName": "a"}, "status": {"phase": "Failed"}})
    assert gpus_in_use(pods) == {"a": 1, "b": 1}


def test_a_worker_waits_for_its_nodes_model_but_not_for_a_cache_that_cannot() -> None:
    half = cache("a", CachedVersion.PULLING, done_bytes=1, size_bytes=2)
    assert fetching(half, VERSION) == "Node a fetches the model: 50 %."
    assert fetching(cache("a"), VERSION) == "Node a is asked to fetch the model."
    assert fetching(cache("a", CachedVersion.PRESENT), VERSION) == ""
    assert fetching(cache("a", CachedVersion.FAILED), VERSION) == ""
    assert fetching(replace(half, error="away"), VERSION) == ""
    assert fetching(None, VERSION) == ""


def test_a_new_worker_is_recorded_with_its_node_and_claim_and_waits_for_the_model() -> None:
    seen = observed(nodes=list(NODES.values()), seen=view(asked=demand(queued=1)))
    made = planned(replace(seen, caches=(cache("a"), cache("b", CachedVersion.PULLING))))
    (worker,) = made.record.workers
    assert (worker.node, worker.claim, worker.state) == ("b", "cache-b", State.CREATING)
    assert worker.reason == "Node b fetches the model."


def test_a_pool_that_says_where_its_files_are_uses_no_node_cache() -> None:
    spec = pool_spec(cache={"storageClassName": "nvme"})
    seen = observed(spec=spec, nodes=list(NODES.values()), seen=view(asked=demand(queued=1)))
    made = planned(replace(seen, caches=(cache("a"),)))
    assert made.record.workers[0].claim == ""


def test_no_worker_is_recorded_where_every_node_with_a_cache_is_full() -> None:
    seen = observed(nodes=list(NODES.values()), seen=view(asked=demand(queued=1)))
    made = planned(replace(seen, caches=(cache("a"),), gpus_used={"a": 2}))
    assert made.record.workers == ()
    assert made.blocked == "No node with a cache has 1 GPUs free."
