"""The sentence that says why, for status and events."""

from __future__ import annotations

from wan22_operator.scaling import gpu
from wan22_operator.scaling.forecast import arrivals_per_second
from wan22_operator.scaling.snapshot import Demand, Snapshot, WorkerState


def grow(snapshot: Snapshot, demand: Demand, present: int, needed: int, wanted: int) -> str:
    """Why there should be more workers, or why there cannot be."""
    loading = sum(worker.state is WorkerState.LOADING for worker in snapshot.workers)
    work = f"{_work(snapshot, demand)} to start within {snapshot.limits.objective_seconds:.0f} s"
    net = f", {loading} of which load already" if loading else ""
    if wanted == needed:
        return f"{present} -> {wanted} workers: {work} needs {needed}{net}."
    if snapshot.unschedulable:
        obstacle = f"{snapshot.unschedulable} of its pods find no node"
    elif snapshot.limits.budget is not None and snapshot.limits.budget < snapshot.limits.maximum:
        obstacle = f"the GPU budget leaves it {snapshot.limits.budget}"
    else:
        obstacle = f"its maximum is {snapshot.limits.maximum}"
    change = f"{present} -> {wanted} workers" if wanted > present else _stays(present)
    return f"{change}: {work} needs {needed}{net}, but {obstacle}."


def no_use(present: int, needed: int) -> str:
    """Why more workers are needed and none is added."""
    return (
        f"{_stays(present)}: {needed} would be needed, but the busy ones use less than {gpu.LOW:.0%} of their GPUs: "
        "they wait for something else, and more GPUs would too."
    )


def blind(present: int, wanted: int, blindness: str) -> str:
    """Why nothing is removed."""
    change = _stays(present) if wanted == present else f"{present} -> {wanted} workers, the minimum"
    return f"{change}: {blindness}, so none is removed."


def shrink_or_stay(demand: Demand, present: int, kept: int, needed: int, held: int) -> str:
    """Why workers are removed, or why they are not."""
    if kept < present:
        return f"{present} -> {kept} workers: {_rate(demand)}, and {present - kept} were not needed for a while."
    if needed >= present:
        return f"{_stays(present)}: {'that many are needed' if present else 'there is nothing to do'}."
    if held >= present:
        return f"{_stays(present)}: {needed} are needed now, but {held} were a moment ago."
    return f"{_stays(present)}: {needed} are needed now, the others are not yet free to leave."


def _stays(present: int) -> str:
    return f"Stays at {present} worker{'' if present == 1 else 's'}"


def _work(snapshot: Snapshot, demand: Demand) -> str:
    count = sum(part.count for part in demand.queued)
    seconds = sum(part.predicted_seconds for part in demand.queued)
    if not count:
        return f"the minimum and the expected work ({_rate(demand)})"
    oldest = snapshot.now - min(part.oldest_create_time for part in demand.queued)
    return f"queued work ({count}, {seconds:.0f} s of GPU time, the oldest waits for {oldest:.0f} s; {_rate(demand)})"


def _rate(demand: Demand) -> str:
    return f"{arrivals_per_second(demand) * 60:.1f} a minute are expected"
