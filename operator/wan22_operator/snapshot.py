"""What the scaling decision is made from, out of what was observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wan22.v1 import pool_pb2
from wan22_operator.gateway import PoolView
from wan22_operator.memory import Memory
from wan22_operator.record import Record, State
from wan22_operator.scaling.snapshot import Demand, Limits, Queued, Reading, Snapshot, Worker, WorkerState
from wan22_operator.spec import PoolSpec
from wan22_operator.workers import Seen

STALE_ROUNDS = 3
STATES = {
    State.CREATING: WorkerState.LOADING,
    State.UNSCHEDULABLE: WorkerState.LOADING,
    State.LOADING: WorkerState.LOADING,
    State.IDLE: WorkerState.IDLE,
    State.BUSY: WorkerState.BUSY,
    State.DRAINING: WorkerState.LEAVING,
    State.BROKEN: WorkerState.UNKNOWN,
    State.UNKNOWN: WorkerState.UNKNOWN,
}
"""A lost one is in no snapshot."""


def snapshot_of(
    spec: PoolSpec,
    record: Record,
    workers: Sequence[Seen],
    view: PoolView | None,
    *,
    budget: int | None,
    resync_seconds: float,
    cached: bool,
    memory: Memory,
    now: float,
) -> Snapshot:
    """One pool now; `budget` is in workers, and new ones find their files on their node if `cached`."""
    limits = Limits(
        minimum=spec.minimum,
        maximum=spec.maximum,
        budget=budget,
        objective_seconds=spec.objective_seconds,
        stale_seconds=STALE_ROUNDS * resync_seconds,
    )
    running = {} if view is None else {work.worker: work for work in view.pool.demand.running}
    ahead = 0.0 if view is None else _ahead(view)
    return Snapshot(
        now=now,
        limits=limits,
        demand=None if view is None else demand_of(view),
        workers=tuple(
            _worker(seen, running, now, memory, ahead, leaves=seen.name in record.victims)
            for seen in workers
            if seen.state is not State.LOST
        ),
        workers_time=None if view is None else view.time,
        load_times=_load_times(record, cached=cached),
        unschedulable=sum(seen.state is State.UNSCHEDULABLE for seen in workers),
    )


def _load_times(record: Record, *, cached: bool) -> tuple[float, ...]:
    """Of loads like the next one, where there was one; of all, else."""
    alike = [load.seconds for load in record.loads if load.cached is cached]
    return tuple(alike or [load.seconds for load in record.loads])


def _ahead(view: PoolView) -> float:
    """Seconds by which the store's clock is ahead of ours."""
    return view.pool.demand.as_of_time.ToMicroseconds() / 1e6 - view.time


def demand_of(view: PoolView) -> Demand:
    """The gateway's figures, with its times moved to our clock."""
    demand, ahead = view.pool.demand, _ahead(view)
    return Demand(
        time=view.time,
        complete=demand.complete,
        queued=tuple(
            Queued(
                bucket.count,
                bucket.predicted_seconds,
                bucket.oldest_create_time.ToMicroseconds() / 1e6 - ahead,
                bucket.start_by_time.ToMicroseconds() / 1e6 - ahead if bucket.HasField("start_by_time") else None,
            )
            for bucket in demand.queued
        ),
        arrivals_60s=demand.arrivals_60s,
        mean_seconds_60s=demand.mean_predicted_seconds_60s,
        arrivals_10m=demand.arrivals_10m,
        mean_seconds_10m=demand.mean_predicted_seconds_10m,
    )


def _worker(
    seen: Seen, running: Mapping[str, pool_pb2.RunningWork], now: float, memory: Memory, ahead: float, *, leaves: bool
) -> Worker:
    work = None if seen.known is None else running.get(seen.known.name)
    state = WorkerState.LEAVING if leaves else STATES[seen.state]
    since = seen.record.since
    if state is WorkerState.LOADING and seen.pod is not None:
        since = seen.scheduled_time
    if state is WorkerState.BUSY and work is not None:
        since = now - work.elapsed_seconds
    predicted = 0.0 if work is None else work.predicted_seconds
    left = memory.load_seconds_left(seen, now) if state is WorkerState.LOADING else None
    return Worker(
        name=seen.name,
        state=state,
        since=since,
        predicted_seconds=predicted,
        load_seconds_left=left,
        gpu_utilization=_reading(seen.known, ahead),
    )


def _reading(worker: pool_pb2.PoolWorker | None, ahead: float) -> Reading | None:
    """What its GPU's sensor said last, as it said it: the decision knows which figures are none."""
    if worker is None or not worker.HasField("gpu"):
        return None
    return Reading(worker.gpu.utilization, worker.gpu.reading_time.ToMicroseconds() / 1e6 - ahead)
