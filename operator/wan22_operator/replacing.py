"""Which workers leave although the pool needs that many: outdated, stalled, broken or lost ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from wan22.v1 import inference_pb2
from wan22_operator.record import READY, State
from wan22_operator.revision import is_current
from wan22_operator.spec import PoolSpec
from wan22_operator.workers import Seen

NOT_YET = frozenset({State.CREATING, State.UNSCHEDULABLE, State.LOADING, State.BROKEN})
"""To take one of these takes no capacity."""


def outdated(workers: Sequence[Seen], revision: str) -> list[Seen]:
    """Those of another revision; one that is not created yet is made as the present one says."""
    return [seen for seen in workers if seen.pod is not None and not is_current(seen.record.revision, revision)]


def replaced(
    spec: PoolSpec,
    workers: Sequence[Seen],
    revision: str,
    wanted: int,
    leaving: Sequence[str],
    spared: Collection[str] = (),
) -> list[str]:
    """Names of outdated workers that are to leave now, as `update` says; those `spared` stay for now.

    Those that have no model in memory go at once; of the others so many that no more than maxUnavailable of the wanted
    are missing, idle ones first. OnIdle takes no busy one; Rolling has busy ones end what they do.
    """
    if spec.trigger == "Manual":
        return []
    stay = {*leaving, *spared}
    staying = [seen for seen in outdated(workers, revision) if seen.name not in stay and not seen.deleted]
    names = [seen.name for seen in staying if seen.state in NOT_YET]
    ready = sum(seen.state in READY and seen.name not in leaving for seen in workers)
    room = spec.unavailable(wanted) - max(0, wanted - ready)
    idle = [seen.name for seen in staying if seen.state is State.IDLE]
    busy = [seen.name for seen in staying if seen.state is State.BUSY] if spec.trigger == "Rolling" else []
    return names + [*idle, *busy][: max(0, room)]


def stalled(
    workers: Sequence[Seen], progress: Mapping[str, tuple[int, float]], seconds: float, now: float
) -> list[Seen]:
    """Workers that load and have had no byte more for so long; `progress` has of each its last bytes left and when."""
    return [
        seen
        for seen in workers
        if seen.state is State.LOADING
        and seen.record.bytes_left
        and seen.record.uid in progress
        and now - progress[seen.record.uid][1] > seconds
    ]


def failed(workers: Sequence[Seen]) -> list[Seen]:
    """Workers that will not work again: the load failed, or the pod has ended."""
    ended = {"Failed", "Succeeded"}
    return [
        seen
        for seen in workers
        if seen.state is State.BROKEN
        and seen.pod is not None
        and (_says_broken(seen) or seen.pod.get("status", {}).get("phase") in ended)
    ]


def _says_broken(seen: Seen) -> bool:
    return seen.known is not None and seen.known.state == inference_pb2.Worker.BROKEN


def surplus(spec: PoolSpec, workers: Sequence[Seen], leaving: Sequence[str]) -> list[str]:
    """Names of busy workers beyond maxReplicas, which was lowered: they leave when they have ended what they do."""
    staying = [
        seen for seen in workers if seen.state is not State.LOST and seen.name not in leaving and not seen.deleted
    ]
    busy = [seen.name for seen in staying if seen.state is State.BUSY]
    return busy[: max(0, len(staying) - spec.maximum)]


def patient(spec: PoolSpec, workers: Sequence[Seen], leaving: Sequence[str], revision: str) -> set[str]:
    """Which of those that leave are fenced although they have a generation, and go when it has ended.

    The others go only if they have none: the scaling itself takes no busy one.
    """
    if spec.external or sum(seen.state is not State.LOST for seen in workers) > spec.maximum:
        return set(leaving)
    old = {seen.name for seen in outdated(workers, revision)} if spec.trigger == "Rolling" else set()
    return old & set(leaving)
