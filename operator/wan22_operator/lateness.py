"""How late a pool's queue is, by which pools are compared that want the same GPUs."""

from __future__ import annotations

from wan22_operator.scaling.snapshot import Demand


def lateness(demand: Demand | None, workers: int, gpus: int, objective_seconds: float, now: float) -> float:
    """Seconds beyond the objective, over all that waits, for each GPU of a worker more.

    What waits is taken to be done in order by the workers there are, at an even pace.
    """
    if demand is None:
        return 0.0
    ahead, late = 0.0, 0.0
    for part in demand.queued:
        start = now - part.oldest_create_time + ahead / max(workers, 1)
        late += part.count * max(0.0, start - objective_seconds)
        ahead += part.predicted_seconds
    # with no worker at all a start is a load away: before those who have some
    return (late + (0.0 if workers else ahead)) / max(gpus, 1)
