"""GPU utilization as a check on a decision: it never adds a worker, and delays a removal by a minute at most."""

from __future__ import annotations

from collections.abc import Sequence

from wan22_operator.scaling.snapshot import Snapshot, Worker, WorkerState

WORKING = 0.05
"""An idle worker's GPU above this is not idle."""
LONGEST_DELAY_SECONDS = 60.0
"""For which a removal waits for it; after that the sensor is taken to be stuck."""
LOW = 0.2
"""Busy workers below this wait for something other than their GPU."""
SETTLED_SECONDS = 60.0
"""A generation begins with work on the CPU: its worker is not judged before."""


def reading_of(worker: Worker, snapshot: Snapshot) -> float | None:
    """The worker's utilization in (0, 1], if there is a fresh one.

    0 is none: MIG and some drivers say so under full load. Neither is anything outside, such as 4294967295.
    """
    reading = worker.gpu_utilization
    if reading is None or snapshot.now - reading.time > snapshot.limits.stale_seconds:
        return None
    return reading.value if 0.0 < reading.value <= 1.0 else None


def still_working(worker: Worker, snapshot: Snapshot) -> bool:
    """Whether an idle worker's GPU has been seen at work, and may be so still."""
    if snapshot.now - worker.since > LONGEST_DELAY_SECONDS:
        return False
    reading = reading_of(worker, snapshot)
    return reading is not None and reading > WORKING and _taken_since(worker, worker.since)


def bottleneck_elsewhere(workers: Sequence[Worker], snapshot: Snapshot) -> bool:
    """Whether each busy worker's utilization is low: more GPUs would wait as well.

    A worker that loads is not looked at: to load is not to be idle.
    """
    busy = [worker for worker in workers if worker.state is WorkerState.BUSY]
    if not busy or any(snapshot.now - worker.since < SETTLED_SECONDS for worker in busy):
        return False
    readings = [reading_of(worker, snapshot) for worker in busy if _taken_since(worker, worker.since)]
    return sum(reading is not None and reading < LOW for reading in readings) == len(busy)


def _taken_since(worker: Worker, time: float) -> bool:
    return worker.gpu_utilization is not None and worker.gpu_utilization.time >= time
