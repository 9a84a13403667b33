"""A gateway's PoolService in memory: as the real one tells it, without a queue, and with workers that are played."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty

from wan22.errors import NotFound
from wan22.v1 import inference_pb2, pool_pb2, pool_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
MIN_INTERVAL = 1.0
"""Shortest time between two answers of WatchPools, seconds, as the gateway's is."""
States = inference_pb2.Worker


class PlayedPools(pool_pb2_grpc.PoolServiceServicer):
    """Pools that were declared, and the workers that `join` them."""

    def __init__(self) -> None:
        self._pools: dict[str, pool_pb2.Pool] = {}
        self._workers: dict[str, dict[str, pool_pb2.PoolWorker]] = {}
        """By pool and by name."""
        self._changed = asyncio.Event()

    def join(self, worker: pool_pb2.PoolWorker) -> None:
        """A worker answers, or answers anew."""
        self._workers.setdefault(worker.pool, {})[worker.name] = worker
        self._changed.set()

    def leave(self, worker: pool_pb2.PoolWorker) -> None:
        """It answers no more."""
        if self._workers[worker.pool].get(worker.name) is worker:
            del self._workers[worker.pool][worker.name]
        self._changed.set()

    async def ApplyPool(self, request: pool_pb2.ApplyPoolRequest, context: Context) -> pool_pb2.Pool:
        """Takes any pool."""
        self._pools[request.pool.name] = request.pool
        self._changed.set()
        return self._pool(request.pool.name)

    async def DeletePool(self, request: pool_pb2.DeletePoolRequest, context: Context) -> Empty:
        """Nothing is ever unfinished."""
        self._pools.pop(request.name, None)
        self._changed.set()
        return Empty()

    async def GetPool(self, request: pool_pb2.GetPoolRequest, context: Context) -> pool_pb2.Pool:
        """One pool."""
        return self._pool(request.name)

    async def ListPools(self, request: pool_pb2.ListPoolsRequest, context: Context) -> pool_pb2.ListPoolsResponse:
        """All pools."""
        return pool_pb2.ListPoolsResponse(pools=[self._pool(name) for name in sorted(self._pools)])

    async def WatchPools(
        self, request: pool_pb2.WatchPoolsRequest, context: Context
    ) -> AsyncIterator[pool_pb2.WatchPoolsResponse]:
        """To one watcher: at once, at a change, and after each silence."""
        while True:
            self._changed.clear()
            yield pool_pb2.WatchPoolsResponse(pools=[self._pool(name) for name in sorted(self._pools)])
            await asyncio.sleep(MIN_INTERVAL)
            with suppress(TimeoutError):
                async with asyncio.timeout(request.max_interval.ToSeconds() - MIN_INTERVAL):
                    await self._changed.wait()

    async def DrainWorker(self, request: pool_pb2.DrainWorkerRequest, context: Context) -> pool_pb2.PoolWorker:
        """Fences it; it never has anything."""
        worker = self._worker(request.name)
        worker.drain_expire_time.FromMilliseconds(round(1000 * time.time()) + request.lease.ToMilliseconds())
        self._changed.set()
        return worker

    async def UndrainWorker(self, request: pool_pb2.UndrainWorkerRequest, context: Context) -> pool_pb2.PoolWorker:
        """Ends a fence."""
        worker = self._worker(request.name)
        worker.ClearField("drain_expire_time")
        self._changed.set()
        return worker

    def _pool(self, name: str) -> pool_pb2.Pool:
        if name not in self._pools:
            raise NotFound(f"There is no {name}.")
        workers = self._workers.get(name, {})
        told = pool_pb2.Pool(demand=pool_pb2.Demand(store_epoch="played", complete=True))
        told.MergeFrom(self._pools[name])
        told.workers.extend(workers[one] for one in sorted(workers))
        told.demand.as_of_time.GetCurrentTime()
        return told

    def _worker(self, name: str) -> pool_pb2.PoolWorker:
        for workers in self._workers.values():
            if name in workers:
                return workers[name]
        raise NotFound(f"There is no {name}.")
