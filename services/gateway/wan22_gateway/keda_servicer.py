"""KEDA's external scaler: the figures of `keda` for whoever scales pools by KEDA rather than by wan22's operator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import grpc

from wan22.errors import InvalidRequest, Unavailable
from wan22.keda import externalscaler_pb2, externalscaler_pb2_grpc
from wan22.v1 import pool_pb2
from wan22_gateway.demand import pool_message
from wan22_gateway.keda import METRIC, Target, has_work, workers_wanted
from wan22_gateway.store import pools
from wan22_gateway.store.database import Database

Context = grpc.aio.ServicerContext[Any, Any]
LOOK_SECONDS = 10.0
"""How long a change that nobody announced can go unnoticed by a stream."""


class KedaServicer(externalscaler_pb2_grpc.ExternalScalerServicer):
    """Reads the store at each call; where the demand is not known it answers an error, never a zero."""

    def __init__(self, database: Database, complete: Callable[[str], bool]) -> None:
        self._database = database
        self._complete = complete
        """Whether all workers of a pool have been looked at."""

    async def IsActive(
        self, request: externalscaler_pb2.ScaledObjectRef, context: Context
    ) -> externalscaler_pb2.IsActiveResponse:
        """Reads whether there is work."""
        pool = await self._pool(Target.parse(request.scalerMetadata))
        return externalscaler_pb2.IsActiveResponse(result=has_work(pool.demand))

    async def StreamIsActive(
        self, request: externalscaler_pb2.ScaledObjectRef, context: Context
    ) -> AsyncIterator[externalscaler_pb2.IsActiveResponse]:
        """Tells at once and at each change whether there is work."""
        target = Target.parse(request.scalerMetadata)
        told: bool | None = None
        with self._database.listen("pools", "queue") as wake:
            while True:
                wake.clear()
                with suppress(Unavailable):  # nothing is said until it is known
                    now = has_work((await self._pool(target)).demand)
                    if now is not told:
                        told = now
                        yield externalscaler_pb2.IsActiveResponse(result=now)
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await wake.wait()

    async def GetMetricSpec(
        self, request: externalscaler_pb2.ScaledObjectRef, context: Context
    ) -> externalscaler_pb2.GetMetricSpecResponse:
        """One metric, whose value is a number of workers."""
        Target.parse(request.scalerMetadata)
        spec = externalscaler_pb2.MetricSpec(metricName=METRIC, targetSize=1, targetSizeFloat=1.0)
        return externalscaler_pb2.GetMetricSpecResponse(metricSpecs=[spec])

    async def GetMetrics(
        self, request: externalscaler_pb2.GetMetricsRequest, context: Context
    ) -> externalscaler_pb2.GetMetricsResponse:
        """Reads how many workers are wanted."""
        if request.metricName != METRIC:
            raise InvalidRequest(f"metricName is {request.metricName!r}: use {METRIC}.", field="metricName")
        target = Target.parse(request.scaledObjectRef.scalerMetadata)
        pool = await self._pool(target)
        wanted = workers_wanted(pool.demand, target.objective, pool.max_workers)
        value = externalscaler_pb2.MetricValue(metricName=METRIC, metricValue=wanted, metricValueFloat=wanted)
        return externalscaler_pb2.GetMetricsResponse(metricValues=[value])

    async def _pool(self, target: Target) -> pool_pb2.Pool:
        """Raises NotFound, or Unavailable while not all workers have been looked at."""
        pool = await self._database.read(
            lambda tx: pool_message(tx, pools.get(tx, target.pool), complete=self._complete(target.pool))
        )
        if not pool.demand.complete:
            text = f"The demand of {target.pool} is not known yet: the gateway still looks for its workers."
            raise Unavailable(text, retry_after=2.0)
        return pool
