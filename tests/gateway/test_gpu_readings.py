from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from google.protobuf.duration_pb2 import Duration

from wan22.channels import open_channel
from wan22.v1 import inference_pb2, pool_pb2, pool_pb2_grpc
from wan22_gateway.gpu_readings import GpuReadings

from . import rows
from .scripted_worker import ScriptedWorkerServicer, place_with

NOW = 1_700_000_000_000_000
"""Of the store, microseconds."""


def said(utilization: float | None, incarnation: str = "i1", age: int = 3) -> inference_pb2.Worker:
    gpu = None if utilization is None else inference_pb2.Worker.Gpu(utilization=utilization, age=Duration(seconds=age))
    return inference_pb2.Worker(pool="pools/a.b", incarnation=incarnation, gpu=gpu)


def shown(readings: GpuReadings, incarnation: str = "i1") -> pool_pb2.PoolWorker:
    worker = pool_pb2.PoolWorker(pool="pools/a.b", incarnation=incarnation, address="h:1")
    readings.fill(worker, NOW)
    return worker


def test_a_reading_is_shown_with_its_time_by_the_stores_clock() -> None:
    readings = GpuReadings()
    noted = time.monotonic()
    readings.note(said(0.25), "h:1")
    worker = shown(readings)
    passed = time.monotonic() - noted
    assert worker.gpu.utilization == 0.25
    age = (NOW - worker.gpu.reading_time.ToMicroseconds()) / 1_000_000
    assert 3.0 <= age <= 3.0 + passed + 1e-3


def test_a_worker_that_says_nothing_has_no_reading() -> None:
    readings = GpuReadings()
    assert not shown(readings).HasField("gpu")
    readings.note(said(0.25), "h:1")
    readings.note(said(None), "h:1")
    assert not shown(readings).HasField("gpu")


def test_another_process_at_the_same_address_does_not_take_over_the_reading() -> None:
    readings = GpuReadings()
    readings.note(said(0.25), "h:1")
    assert not shown(readings, "i2").HasField("gpu")


def test_nothing_is_kept_of_an_address_where_nobody_is_asked_any_more() -> None:
    readings = GpuReadings()
    readings.note(said(0.25), "h:1")
    readings.forget("pools/a.b", "h:1")
    assert not shown(readings).HasField("gpu")


class BusyWorkerServicer(ScriptedWorkerServicer):
    """Says that its GPU is busy for a quarter of the time."""

    async def GetWorker(self, request: inference_pb2.GetWorkerRequest, context: Any) -> inference_pb2.Worker:
        worker = await super().GetWorker(request, context)
        worker.gpu.CopyFrom(inference_pb2.Worker.Gpu(utilization=0.25, age=Duration(seconds=1)))
        return worker


async def test_who_watches_pools_is_told_what_the_workers_gpus_say(tmp_path: Path) -> None:
    async with (
        place_with(tmp_path, BusyWorkerServicer()) as place,
        open_channel(f"127.0.0.1:{place.serving.port}") as channel,
    ):
        stub: Any = pool_pb2_grpc.PoolServiceStub(channel)
        async for answer in stub.WatchPools(pool_pb2.WatchPoolsRequest(), timeout=60.0):
            pool = answer.pools[0]
            if pool.workers:
                break
        (worker,) = pool.workers
        assert worker.gpu.utilization == 0.25
        age = pool.demand.as_of_time.ToMicroseconds() - worker.gpu.reading_time.ToMicroseconds()
        assert 900_000 <= age <= 60_000_000
        got = await stub.GetPool(pool_pb2.GetPoolRequest(name=rows.POOL), timeout=60.0)
        assert got.workers[0].gpu.utilization == 0.25
