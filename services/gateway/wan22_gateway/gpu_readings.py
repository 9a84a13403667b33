"""What the sensors of the workers' GPUs said last: remembered by each replica, since all of them ask all workers."""

from __future__ import annotations

import time
from dataclasses import dataclass

from wan22.v1 import inference_pb2, pool_pb2
from wan22_gateway.lifecycle import timestamp


@dataclass(frozen=True)
class _Reading:
    incarnation: str
    utilization: float
    time: float
    """By the monotonic clock."""


class GpuReadings:
    """The newest reading of each address, for as long as something is asked there."""

    def __init__(self) -> None:
        self._readings: dict[tuple[str, str], _Reading] = {}

    def note(self, worker: inference_pb2.Worker, address: str) -> None:
        """Takes what a worker has just answered."""
        key = (worker.pool, address)
        if worker.HasField("gpu"):
            read_at = time.monotonic() - worker.gpu.age.ToMicroseconds() / 1_000_000
            self._readings[key] = _Reading(worker.incarnation, worker.gpu.utilization, read_at)
        else:
            self._readings.pop(key, None)

    def forget(self, pool: str, address: str) -> None:
        """Drops what was noted of an address where nobody is asked any more."""
        self._readings.pop((pool, address), None)

    def fill(self, worker: pool_pb2.PoolWorker, now: int) -> None:
        """Adds the reading of a worker's own process, where there is one; `now` is the store's, microseconds."""
        reading = self._readings.get((worker.pool, worker.address))
        if reading is not None and reading.incarnation == worker.incarnation:
            age = round((time.monotonic() - reading.time) * 1_000_000)
            worker.gpu.utilization = reading.utilization
            worker.gpu.reading_time.CopyFrom(timestamp(now - age))
