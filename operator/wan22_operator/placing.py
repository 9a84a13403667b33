"""On which node a new worker is to be, where nodes have caches: its claim ties it to one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from wan22.v1 import cache_pb2
from wan22_operator.builders.pod import GPU
from wan22_operator.caches import NodeCache
from wan22_operator.nodes import Node
from wan22_operator.spec import PoolSpec

NOT_THERE, WAITS, COMES, THERE = range(4)


def gpus_in_use(pods: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """GPUs that workers' pods hold, by node."""
    used: Counter[str] = Counter()
    for pod in pods:
        node = pod["spec"].get("nodeName") or _wanted_node(pod)
        if node and pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}:
            used[node] += sum(
                int(container.get("resources", {}).get("limits", {}).get(GPU, 0))
                for container in pod["spec"]["containers"]
            )
    return used


def uses_caches(spec: PoolSpec, caches: Sequence[NodeCache]) -> bool:
    """Whether a pool's workers are given the claims of node caches: unless it says where else its files are to be."""
    return bool(caches) and not {"claimName", "storageClassName"} & spec.cache.keys()


def place(
    spec: PoolSpec,
    version: str,
    caches: Sequence[NodeCache],
    nodes: Mapping[str, Node],
    used: Mapping[str, int],
    avoided: Collection[str],
    own: Mapping[str, int],
) -> NodeCache | None:
    """The cache, and so the node, of the next worker: one that holds the model before one that fetches it.

    Among equals one that keeps the pool spread as it asks for, then the one with the most GPUs free. None where every
    node that suits is full, or would have more of the pool's workers than its spread allows; `own` counts them.
    """
    selector = spec.scheduling.get("nodeSelector", {})

    def free(cache: NodeCache) -> int:
        return int(nodes[cache.node].allocatable.get(GPU, 0)) - used.get(cache.node, 0)

    fit = [cache for cache in caches if cache.node in nodes and nodes[cache.node].suits(selector)]
    spread = Spread(spec.scheduling.get("topologySpreadConstraints", ()), [nodes[cache.node] for cache in fit], own)
    suited = [
        cache
        for cache in fit
        if cache.node not in avoided
        and (not spec.gpus or free(cache) >= spec.gpus)
        and not spread.crowds(nodes[cache.node], "DoNotSchedule")
    ]

    def worth(cache: NodeCache) -> tuple[int, int, int, str]:
        crowded = spread.crowds(nodes[cache.node], "ScheduleAnyway")
        return _presence(cache, version), -crowded, free(cache), cache.node

    return max(suited, key=worth, default=None)


def places(
    spec: PoolSpec,
    version: str,
    caches: Sequence[NodeCache],
    nodes: Mapping[str, Node],
    used: Mapping[str, int],
    avoided: Collection[str],
    own: Mapping[str, int],
    count: int,
) -> list[NodeCache]:
    """The caches of that many new workers, or of as many as there is room for."""
    found: list[NodeCache] = []
    taken, there = Counter(used), Counter(own)
    while len(found) < count:
        cache = place(spec, version, caches, nodes, taken, avoided, there)
        if cache is None:
            break
        found.append(cache)
        taken[cache.node] += spec.gpus
        there[cache.node] += 1
    return found


class Spread:
    """A pool's topology spread over nodes, as the scheduler counts it.

    The scheduler itself cannot keep it for a worker that is tied to a node: to it that node is all there is.
    """

    def __init__(self, constraints: Sequence[Mapping[str, Any]], nodes: Sequence[Node], own: Mapping[str, int]) -> None:
        self._constraints = constraints
        self._counts = {constraint["topologyKey"]: _by_domain(constraint, nodes, own) for constraint in constraints}

    def crowds(self, node: Node, otherwise: str) -> int:
        """How many constraints of this kind of `whenUnsatisfiable` one more worker on the node would break."""
        return sum(
            constraint.get("whenUnsatisfiable", "ScheduleAnyway") == otherwise and self._breaks(constraint, node)
            for constraint in self._constraints
        )

    def _breaks(self, constraint: Mapping[str, Any], node: Node) -> bool:
        key = constraint["topologyKey"]
        if key not in node.labels:
            return True
        counts = self._counts[key]
        return counts[node.labels[key]] + 1 - min(counts.values()) > int(constraint.get("maxSkew", 1))


def _by_domain(constraint: Mapping[str, Any], nodes: Sequence[Node], own: Mapping[str, int]) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for node in nodes:
        if (domain := node.labels.get(constraint["topologyKey"])) is not None:
            counts[domain] = counts.get(domain, 0) + own.get(node.name, 0)
    return counts


def fetching(cache: NodeCache | None, version: str) -> str:
    """What a worker waits for that is not created before its node has its model; empty where it need not wait.

    A cache that is away or fails stops nobody: the worker fetches the files itself, or says why it cannot.
    """
    if cache is None or cache.error or cache.has(version):
        return ""
    said = cache.versions.get(version)
    if said is None:
        return f"Node {cache.node} is asked to fetch the model."
    if said.state == cache_pb2.CachedVersion.FAILED:
        return ""
    percent = f": {100 * said.done_bytes // said.size_bytes} %" if said.size_bytes else ""
    return f"Node {cache.node} fetches the model{percent}."


def _presence(cache: NodeCache, version: str) -> int:
    if cache.has(version):
        return THERE
    if version not in cache.versions:
        return NOT_THERE
    return COMES if cache.versions[version].state == cache_pb2.CachedVersion.PULLING else WAITS


def _wanted_node(pod: Mapping[str, Any]) -> str | None:
    """The node that a pod is tied to which the scheduler has not bound yet."""
    required = pod["spec"].get("affinity", {}).get("nodeAffinity", {})
    terms = required.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [])
    for term in terms:
        for field in term.get("matchFields", []):
            if field["operator"] == "In":
                node: str = field["values"][0]
                return node
    return None
