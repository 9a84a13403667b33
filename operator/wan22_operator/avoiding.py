"""Nodes where loads fail are avoided for a while, longer each time; and what stands in the way of one more worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from wan22_operator.memory import Memory
from wan22_operator.observed import Observed
from wan22_operator.record import READY, Avoided, Record, State
from wan22_operator.replacing import failed, stalled
from wan22_operator.revision import is_current
from wan22_operator.settings import OperatorSettings
from wan22_operator.workers import Seen

AVOID_SECONDS = 60.0
LONGEST_AVOID_SECONDS = 3600.0
UNSCHEDULABLE_SECONDS = 30.0
FORGIVE_SECONDS = 3600.0
"""After so long without a failure a node counts as new."""


def avoiding(
    record: Record,
    workers: Sequence[Seen],
    memory: Memory,
    settings: OperatorSettings,
    now: float,
) -> tuple[Record, list[Seen]]:
    """Which workers have failed, and the nodes that are avoided because of them."""
    new = [
        (seen, f"A load stood still for {settings.stall_seconds:g} s.")
        for seen in stalled(workers, memory.progress, settings.stall_seconds, now)
    ]
    new += [(seen, seen.record.reason or "A load failed.") for seen in failed(workers)]
    new += [(seen, seen.record.reason) for seen in _misplaced(workers, now)]
    avoided = {node.node: node for node in record.avoided if now < node.until + FORGIVE_SECONDS}
    for seen, why in new:
        node = seen.record.node
        if seen.name in record.victims or not node:
            continue
        failures = 1 if (known := avoided.get(node)) is None else known.failures + 1
        until = now + min(AVOID_SECONDS * 2 ** (failures - 1), LONGEST_AVOID_SECONDS)
        avoided[node] = Avoided(node, until, failures, why[:1000])
    lost = [seen for seen in workers if seen.state is State.LOST and not seen.deleted]
    return replace(record, avoided=tuple(avoided.values())), [*(seen for seen, _ in new), *lost]


def obstacle_of(observed: Observed, record: Record, workers: Sequence[Seen]) -> str:
    """Why a worker would not help now, if it would not."""
    ours = [seen for seen in workers if is_current(seen.record.revision, record.revision)]
    if any(seen.state in READY for seen in ours):
        return ""
    broken = [seen for seen in ours if seen.state is State.BROKEN]
    if broken:
        return f"{broken[0].name} is broken: {broken[0].record.reason}"
    waits = {node.node: node.until for node in record.avoided if node.until > observed.now}
    suited = _suited(observed)
    if waits and all(name in waits for name in suited):
        return f"Loads have failed on every node: the next try is in {min(waits.values()) - observed.now:.0f} s."
    return ""


def _misplaced(workers: Sequence[Seen], now: float) -> list[Seen]:
    """Workers whose node, given with its cache, does not take them: somebody else has its GPUs."""
    return [
        seen
        for seen in workers
        if seen.state is State.UNSCHEDULABLE and seen.record.claim and now - seen.record.since > UNSCHEDULABLE_SECONDS
    ]


def loads_left(observed: Observed, workers: Sequence[Seen], loads_per_node: int) -> int:
    """How many more workers may begin to load, so that no disk and no registry serves too many at once.

    Where no node is suited one may be made all the same: its pod tells what is missing.
    """
    loading = sum(seen.state in {State.CREATING, State.LOADING} for seen in workers)
    return max(loads_per_node * max(len(_suited(observed)), 1) - loading, 0)


def _suited(observed: Observed) -> list[str]:
    selector = observed.spec.scheduling.get("nodeSelector", {})
    return [node.name for node in observed.nodes.values() if node.suits(selector)]
