"""KEDA's external scaler, called as KEDA calls it: by its contract, with its client certificate."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan22.channels import open_channel
from wan22.errors import InvalidRequest, Reason
from wan22.keda import externalscaler_pb2, externalscaler_pb2_grpc
from wan22.status import from_rpc_error
from wan22.v1 import inference_pb2
from wan22.v1.pool_pb2 import Demand, DemandBucket, RunningWork
from wan22_gateway.gateway import keda_server
from wan22_gateway.keda import METRIC, Target, has_work, workers_wanted
from wan22_gateway.keda_servicer import KedaServicer
from wan22_gateway.settings import GatewaySettings
from wan22_gateway.store.database import Database
from wan22_testing.authority import Authority

from . import rows
from .scripted_worker import T2V, ScriptedWorkerServicer, gateway_with

REF = externalscaler_pb2.ScaledObjectRef(
    name="workers",
    namespace="video",
    scalerMetadata={"scalerAddress": "gateway:50053", "pool": rows.POOL, "objectiveSeconds": "25"},
)
METRICS = externalscaler_pb2.GetMetricsRequest(scaledObjectRef=REF, metricName=METRIC)


def bucket(count: int, seconds: float) -> DemandBucket:
    return DemandBucket(count=count, predicted_seconds=seconds)


@pytest.mark.parametrize(
    ("demand", "wanted"),
    [
        (Demand(), 0),
        (Demand(queued=[bucket(1, 5)]), 1),
        (Demand(queued=[bucket(10, 1000)]), 9),  # 1000 s within 120 s
        (Demand(queued=[bucket(2, 1000)]), 2),  # more workers than generations are of no use
        (Demand(queued=[bucket(1000, 100_000)]), 16),  # what the pool may have
        (Demand(running=[RunningWork(predicted_seconds=10, elapsed_seconds=9)] * 3), 3),  # none that is busy goes
        (Demand(queued=[bucket(3, 60)], running=[RunningWork(predicted_seconds=300, elapsed_seconds=100)]), 3),
        (Demand(running=[RunningWork(predicted_seconds=300, elapsed_seconds=1000)]), 1),
    ],
)
def test_the_metric_is_the_workers_that_work_off_what_there_is_within_the_objective(
    demand: Demand, wanted: int
) -> None:
    assert workers_wanted(demand, 120.0, 16) == wanted


seconds = st.floats(0.1, 5000)


@given(
    st.lists(st.tuples(st.integers(1, 20), seconds), max_size=8),
    st.lists(st.tuples(seconds, seconds), max_size=8),
    seconds,
    st.integers(0, 40),
)
def test_the_metric_is_zero_without_work_alone_and_never_below_what_runs(
    queued: list[tuple[int, float]], running: list[tuple[float, float]], objective: float, most: int
) -> None:
    demand = Demand(
        queued=[bucket(count, time) for count, time in queued],
        running=[RunningWork(predicted_seconds=p, elapsed_seconds=e) for p, e in running],
    )
    wanted = workers_wanted(demand, objective, most)
    assert len(running) <= wanted <= max(most, len(running))
    assert wanted <= sum(count for count, _ in queued) + len(running)
    if most:
        assert (wanted > 0) is has_work(demand)


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({}, "pool"),
        ({"pool": "t2v"}, "pool"),
        ({"pool": rows.POOL, "objectiveSeconds": "soon"}, "objectiveSeconds"),
        ({"pool": rows.POOL, "objectiveSeconds": "0"}, "objectiveSeconds"),
        ({"pool": rows.POOL, "objectiveSeconds": "nan"}, "objectiveSeconds"),
    ],
)
def test_bad_metadata_are_refused_by_name(metadata: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Target.parse(metadata)
    assert caught.value.violations[0].field == f"scalerMetadata.{field}"


async def failure(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    code: grpc.StatusCode = caught.value.code()
    return code


async def test_keda_follows_a_pool_from_idle_to_busy_and_back(tmp_path: Path) -> None:
    worker = ScriptedWorkerServicer()
    await worker.Drain(inference_pb2.DrainRequest(), cast("Any", None))  # so that what is queued stays there
    async with gateway_with(tmp_path, worker) as client, open_channel(client.endpoint) as channel:
        stub: Any = externalscaler_pb2_grpc.ExternalScalerStub(channel)
        spec = (await stub.GetMetricSpec(REF)).metricSpecs
        assert [(s.metricName, s.targetSize, s.targetSizeFloat) for s in spec] == [(METRIC, 1, 1.0)]
        stream = stub.StreamIsActive(REF)
        async with asyncio.timeout(60):
            assert (await stream.read()).result is False
            assert (await stub.IsActive(REF)).result is False
            assert (await stub.GetMetrics(METRICS)).metricValues[0].metricValueFloat == 0.0
            made = await client.create(variant=T2V, prompt="work")
            assert (await stream.read()).result is True
            assert (await stub.IsActive(REF)).result is True
            value = (await stub.GetMetrics(METRICS)).metricValues[0]
            assert (value.metricName, value.metricValue, value.metricValueFloat) == (METRIC, 1, 1.0)
            await client.cancel(made.name)
            assert (await stream.read()).result is False
        stream.cancel()
        unknown = externalscaler_pb2.ScaledObjectRef(scalerMetadata={"pool": "pools/no.where"})
        assert await failure(stub.IsActive(unknown)) is grpc.StatusCode.NOT_FOUND
        other = externalscaler_pb2.GetMetricsRequest(scaledObjectRef=REF, metricName="s0-other")
        assert await failure(stub.GetMetrics(other)) is grpc.StatusCode.INVALID_ARGUMENT


async def test_demand_that_is_not_known_is_an_error_and_never_zero_and_certificates_say_who_asks(
    tmp_path: Path, database: Database
) -> None:
    authority = Authority(tmp_path)
    gateway = authority.issue("gateway")
    folders: dict[str, Any] = {"store": tmp_path / "store", "results": tmp_path / "videos"}
    settings = GatewaySettings(
        keda_port=0, tls_ca=gateway.ca, tls_cert=gateway.cert, tls_key=gateway.key, auth="off", **folders
    )
    await database.write(rows.add_pool)
    await database.write(rows.add_generation)
    known = False
    async with keda_server(settings, KedaServicer(database, lambda _: known)) as server:
        async with open_channel(f"localhost:{server.port}", authority.issue("keda")) as channel:
            stub: Any = externalscaler_pb2_grpc.ExternalScalerStub(channel)
            assert await failure(stub.GetMetrics(METRICS)) is grpc.StatusCode.UNAVAILABLE
            assert await failure(stub.IsActive(REF)) is grpc.StatusCode.UNAVAILABLE
            stream = stub.StreamIsActive(REF)
            answer = asyncio.ensure_future(stream.read())
            known = True
            await database.write(lambda tx: tx.notify("queue"))
            assert (await asyncio.wait_for(answer, 10)).result is True
            stream.cancel()
            assert (await stub.GetMetrics(METRICS)).metricValues[0].metricValue == 1
        async with open_channel(f"localhost:{server.port}", authority.issue("worker")) as channel:
            stub = externalscaler_pb2_grpc.ExternalScalerStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.IsActive(REF)
            assert from_rpc_error(caught.value).reason is Reason.ROLE_MISSING
