"""What no autoscaler has: every arrival, duration and load time beforehand. A yardstick of what is left to gain."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace

from wan22_bench.scaling.policies.hpa import named_victims
from wan22_bench.scaling.simulator import Change, Simulation, State


@dataclass(frozen=True, kw_only=True)
class ForesightSettings:
    """Where knowing everything leaves a choice."""

    keep_loads: float = 2.0
    """An idle worker is kept for what comes within so many load times."""
    margin_seconds: float = 1.0
    """A generation is to start so long before its objective ends."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A generation, in seconds from now."""

    arrival: float
    start_by: float
    seconds: float


class Foresight:
    """Starts a worker for who is here, or comes too soon to wait any longer; keeps one while that is cheaper."""

    period = 5.0
    eager = True

    def __init__(self, settings: ForesightSettings) -> None:
        self._settings = settings

    def may_sleep(self, fleet: Simulation) -> bool:
        """Not before the last arrival: each may need a worker that was started before it."""
        return fleet.arrived == len(fleet.arrivals)

    def decide(self, fleet: Simulation) -> Change:
        """One look."""
        load = fleet.next_load_seconds
        staying = fleet.staying
        free = sorted(_free_in(fleet, worker.number) for worker in staying)
        urgent = self._jobs(fleet, load + self.period - fleet.setup.objective_seconds + self._settings.margin_seconds)
        most = fleet.setup.max_workers - (len(fleet.workers) - len(staying))
        needed = len(staying)
        while needed < most and not _in_time(free + [load] * (needed - len(staying)), urgent, at_least=load):
            needed += 1
        if needed > len(staying):
            return Change(start=needed - len(staying))
        coming = self._jobs(fleet, self._settings.keep_loads * load)
        kept = sum(worker.state is State.BUSY for worker in staying)
        while kept < len(staying) and not _in_time(free[:kept], coming):
            kept += 1
        idle = sum(worker.state is State.IDLE for worker in staying)  # one that loads was started for somebody
        return Change(stop=named_victims(fleet, min(idle, len(staying) - kept)))

    def _jobs(self, fleet: Simulation, within: float) -> list[_Job]:
        """What waits and what arrives within so many seconds."""
        last = bisect_right(fleet.arrivals, fleet.now + within, fleet.arrived)
        objective = fleet.setup.objective_seconds - self._settings.margin_seconds
        return [
            _Job(
                max(0.0, fleet.arrivals[job] - fleet.now),
                fleet.arrivals[job] + objective - fleet.now,
                fleet.durations[job],
            )
            for job in (*fleet.queue, *range(fleet.arrived, last))
        ]


def _free_in(fleet: Simulation, number: int) -> float:
    worker = fleet.workers[number]
    if worker.state is State.BUSY:
        return worker.started + fleet.durations[worker.job] - fleet.now
    return worker.created + worker.load_seconds - fleet.now if worker.state is State.LOADING else 0.0


def _in_time(free: Sequence[float], jobs: Sequence[_Job], *, at_least: float = 0.0) -> bool:
    """Whether each starts in time; one that a worker `at_least` so many seconds away could not help counts so, too."""
    if not free:
        return not jobs
    heap = list(free)
    heapify(heap)
    for job in jobs:
        start = max(heap[0], job.arrival)
        if start > max(job.start_by, at_least):
            return False
        heapreplace(heap, start + job.seconds)
    return True
