"""From a snapshot and what is remembered to how many workers a pool should have, which of them leave, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, inf

from wan22_operator.scaling import gpu, reason
from wan22_operator.scaling.forecast import expected_jobs
from wan22_operator.scaling.history import History
from wan22_operator.scaling.lookahead import Job, least_workers
from wan22_operator.scaling.snapshot import Demand, Queued, Snapshot, Worker, WorkerState
from wan22_operator.scaling.tuning import Tuning, tuning_for

ASSUMED_LOAD_SECONDS = 120.0
"""Before the first load has been measured."""
LEAST_LEFT = 0.1
"""A generation that outlives its prediction is taken to last this share of it longer."""
LEAST_LOAD_LEFT = 5.0
"""Seconds that a load which outlives its prediction is taken to last longer."""
SETTLED_LOADS = 1.5
"""Load times after a removal in which nothing but an arrival starts a worker: one, and a half for a load time that was
measured too short."""
MINUTE = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What to do now."""

    workers: int
    """How many the pool should have, those that leave not counted."""
    start: int
    """How many to create now."""
    remove: tuple[str, ...]
    """Names of workers to fence at the gateway and, once that is acknowledged, to delete; none of them is busy."""
    reason: str
    """One sentence for status and events."""
    history: History
    """To be given to the next decision."""
    held_back: bool = False
    """More would be needed by the queue, and would not help."""


def load_seconds(load_times: Sequence[float]) -> float:
    """How long a load is taken to last: the 80th percentile of those measured."""
    if not load_times:
        return ASSUMED_LOAD_SECONDS
    return sorted(load_times)[ceil(0.8 * len(load_times)) - 1]


def decide(snapshot: Snapshot, history: History, tuning: Tuning | None = None) -> Decision:
    """Looks ahead over the queue and the expected arrivals, and takes the fewest workers that start all in time.

    Grows at once; shrinks only on figures that are there, complete and fresh, only by workers that are not busy, and
    only after they were not needed for a while. Lateness that a new worker could not avoid starts none. A pool whose
    limits were lowered shrinks to them as its workers finish. Without a tuning, the one found for such load times.
    """
    staying = [worker for worker in snapshot.workers if worker.state is not WorkerState.LEAVING]
    present = len(staying)
    ceiling, room = _ceiling(snapshot), _room(snapshot, present)
    floor = min(snapshot.limits.minimum, ceiling)
    load = load_seconds(snapshot.load_times)
    tuning = tuning or tuning_for(load, snapshot.limits.objective_seconds)
    hold = tuning.hold_loads * load
    demand = snapshot.demand
    if demand is None:
        wanted = max(present, min(floor, room))
        why = reason.blind(present, wanted, "the gateway has not said what there is to do")
        return _grown(wanted, present, why, history.remember(snapshot.now, present, hold))
    starting, keeping = _needs(snapshot, staying, demand, load, tuning, history)
    blindness = _blindness(snapshot, demand)
    history = history.remember(snapshot.now, present if blindness else keeping, hold)
    needed = max(starting, floor)
    if needed > present:
        if present >= floor and gpu.bottleneck_elsewhere(staying, snapshot):
            return replace(_grown(present, present, reason.no_use(present, needed), history), held_back=True)
        wanted = max(present, min(needed, room))
        return _grown(wanted, present, reason.grow(snapshot, demand, present, needed, wanted), history)
    if blindness is not None:
        return _grown(present, present, reason.blind(present, present, blindness), history)
    wanted = min(max(needed, keeping, history.held, floor), present, max(ceiling, 0))
    victims = _victims(staying, present - wanted, snapshot)
    kept = present - len(victims)
    why = reason.shrink_or_stay(demand, present, kept, max(needed, keeping), history.held)
    if victims:
        history = replace(history, let_go=(snapshot.now, kept))
    return Decision(workers=kept, start=0, remove=victims, reason=why, history=history)


def _grown(wanted: int, present: int, why: str, history: History) -> Decision:
    return Decision(workers=wanted, start=wanted - present, remove=(), reason=why, history=history)


def _ceiling(snapshot: Snapshot) -> int:
    limits = snapshot.limits
    return limits.maximum if limits.budget is None else min(limits.maximum, limits.budget)


def _room(snapshot: Snapshot, present: int) -> int:
    """Up to how many it may grow: leaving workers hold their GPUs, and a pod that finds no node is no help."""
    if snapshot.unschedulable:
        return present
    return max(present, _ceiling(snapshot) - (len(snapshot.workers) - present))


def _blindness(snapshot: Snapshot, demand: Demand) -> str | None:
    """Why the figures are no evidence for a removal, if they are none."""
    stale = snapshot.limits.stale_seconds
    if snapshot.now - demand.time > stale:
        return f"the gateway's figures are {snapshot.now - demand.time:.0f} s old"
    if not demand.complete:
        return "the gateway has not yet looked at every worker"
    if snapshot.workers_time is None:
        return "the workers' states are not known"
    if snapshot.now - snapshot.workers_time > stale:
        return f"the workers' states are {snapshot.now - snapshot.workers_time:.0f} s old"
    return None


def _needs(
    snapshot: Snapshot, staying: Sequence[Worker], demand: Demand, load: float, tuning: Tuning, history: History
) -> tuple[int, int]:
    """How many workers it takes for what is here and is likely to come, and how many are worth keeping.

    After a removal, while those that stayed are there, only what came since starts a worker, and nothing does until
    something has come: else a prediction that was too short would change its mind without news, and flap.
    """
    now, objective = snapshot.now, snapshot.limits.objective_seconds * tuning.objective_share
    unknown = sum(worker.state is WorkerState.UNKNOWN for worker in staying)
    free = sorted(_free_in(worker, now, load) for worker in staying if worker.state is not WorkerState.UNKNOWN)
    busy = sum(worker.state is WorkerState.BUSY for worker in staying)
    most = max(_ceiling(snapshot) - unknown, busy)
    let_go, stayed = history.let_go or (-inf, 0)
    settled = now - let_go < SETTLED_LOADS * load and len(staying) >= stayed
    queued = [
        Job(part.predicted_seconds / part.count, max(_start_by(part, objective) - now, load))
        for part in demand.queued
        for _ in range(part.count)
    ]
    news = [
        Job(job.seconds, inf) if settled and part.count == 1 and part.oldest_create_time <= let_go else job
        for job, part in zip(queued, (part for part in demand.queued for _ in range(part.count)), strict=True)
    ]

    def need(jobs: list[Job], share: float) -> int:
        jobs = jobs + expected_jobs(demand, share, load, objective, load)
        return unknown + (least_workers(free, jobs, max(busy, 1), most, load) if jobs else busy)

    starting = need(news, tuning.start_share)
    if settled and not _has_come(demand, let_go):
        starting = min(starting, len(staying))
    # While generations wait, as many workers that load stay: they are the answer to predictions that were too short.
    awaited = min(unknown + busy + len(queued), len(staying))
    return starting, max(starting, need(queued, tuning.keep_share), awaited)


def _has_come(demand: Demand, since: float) -> bool:
    """Whether the figures prove an arrival after that time: one that waits, or one of the last minute."""
    if demand.arrivals_60s and demand.time - since >= MINUTE:
        return True
    return any(part.count > 1 or part.oldest_create_time > since for part in demand.queued)


def _start_by(queued: Queued, objective: float) -> float:
    """When the generations should start, in seconds since the epoch."""
    promised = queued.oldest_create_time + objective
    return promised if queued.start_by_time is None else min(promised, queued.start_by_time)


def _free_in(worker: Worker, now: float, load: float) -> float:
    """Seconds until the worker takes another generation."""
    if worker.state is WorkerState.BUSY:
        left = worker.predicted_seconds - (now - worker.since)
        return max(left, LEAST_LEFT * worker.predicted_seconds)
    if worker.state is WorkerState.LOADING:
        left = load - (now - worker.since) if worker.load_seconds_left is None else worker.load_seconds_left
        return max(left, LEAST_LOAD_LEFT)
    return 0.0


def _victims(staying: Sequence[Worker], count: int, snapshot: Snapshot) -> tuple[str, ...]:
    """The longest idle, then the newest that load; never a busy one, nor one whose GPU was just seen at work."""
    idle = [
        worker for worker in staying if worker.state is WorkerState.IDLE and not gpu.still_working(worker, snapshot)
    ]
    loading = [worker for worker in staying if worker.state is WorkerState.LOADING]
    idle.sort(key=lambda worker: worker.since)
    loading.sort(key=lambda worker: -worker.since)
    return tuple(worker.name for worker in (idle + loading)[:count])
