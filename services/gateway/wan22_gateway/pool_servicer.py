"""PoolService: what an operator declares, and the demand it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty

from wan22 import names
from wan22.errors import InvalidRequest
from wan22.obstacle import LONGEST_OBSTACLE
from wan22.v1 import pool_pb2, pool_pb2_grpc
from wan22.variants import VARIANTS
from wan22_gateway import output_only
from wan22_gateway.demand import pool_message, worker_message
from wan22_gateway.discovery import Discovery
from wan22_gateway.prompt_length import PromptLengths
from wan22_gateway.store import pools
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.pools import PoolRow, WorkerRow
from wan22_gateway.webhooks.addresses import is_name

Context = grpc.aio.ServicerContext[Any, Any]
SPEC = frozenset(pool_pb2.Pool.DESCRIPTOR.fields_by_name) - {"workers", "demand"}
"""What an operator may set of a pool."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 1.0
"""Seconds between two answers of WatchPools: a queue that begins is to be decided on within one."""
PAUSE_SHARE = 9.0
"""How many times longer than its making the pause after an answer is, within these bounds: many pools take long."""


class PoolServicer(pool_pb2_grpc.PoolServiceServicer):
    """Keeps pools as rows and reports what they are asked to do."""

    def __init__(self, database: Database, prompts: PromptLengths, discovery: Discovery) -> None:
        self._database = database
        self._prompts = prompts
        self._discovery = discovery

    async def ApplyPool(self, request: pool_pb2.ApplyPoolRequest, context: Context) -> pool_pb2.Pool:
        """Takes the spec once the version's tokenizer is here, so that a served variant can always check prompts."""
        pool = request.pool
        _check(pool)
        await self._prompts.prepare(pool.model_version)
        await self._database.write(pools.apply, pool)
        return await self._get(pool.name)

    async def DeletePool(self, request: pool_pb2.DeletePoolRequest, context: Context) -> Empty:
        """Removes the rows."""
        name = names.check_pool(request.name)
        if request.refuse_queued:
            await self._database.write(pools.refuse_queued, name)  # for good, also where something still runs
        await self._database.write(pools.remove, name)
        return Empty()

    async def GetPool(self, request: pool_pb2.GetPoolRequest, context: Context) -> pool_pb2.Pool:
        """Reads one pool."""
        return await self._get(names.check_pool(request.name))

    async def ListPools(self, request: pool_pb2.ListPoolsRequest, context: Context) -> pool_pb2.ListPoolsResponse:
        """Reads all pools."""
        return pool_pb2.ListPoolsResponse(pools=await self._database.read(self._all))

    async def WatchPools(
        self, request: pool_pb2.WatchPoolsRequest, context: Context
    ) -> AsyncIterator[pool_pb2.WatchPoolsResponse]:
        """Streams all pools: at once, at a change, and after each silence of `max_interval`."""
        has = request.HasField("max_interval")
        interval = _seconds(request.max_interval, has, 10.0, low=1.0, high=60.0, field="max_interval")
        with self._database.listen("pools", "queue") as wake:
            while True:
                wake.clear()
                began = time.monotonic()
                answer = pool_pb2.WatchPoolsResponse(pools=await self._database.read(self._all))
                pause = min(max(PAUSE_SHARE * (time.monotonic() - began), SHORTEST_PAUSE), LONGEST_PAUSE)
                yield answer
                await asyncio.sleep(pause)
                with suppress(TimeoutError):
                    async with asyncio.timeout(interval - pause):
                        await wake.wait()

    async def DrainWorker(self, request: pool_pb2.DrainWorkerRequest, context: Context) -> pool_pb2.PoolWorker:
        """Bars a worker from new attempts for a while."""
        name = names.check_worker(request.name)
        lease = _seconds(request.lease, request.HasField("lease"), 60.0, low=1.0, high=3600.0, field="lease")
        await self._database.write(pools.drain, name, lease, request.allow_claimed)
        return await self._get_worker(name)

    async def UndrainWorker(self, request: pool_pb2.UndrainWorkerRequest, context: Context) -> pool_pb2.PoolWorker:
        """Ends a drain."""
        name = names.check_worker(request.name)
        await self._database.write(pools.undrain, name)
        return await self._get_worker(name)

    async def _get(self, name: str) -> pool_pb2.Pool:
        return await self._database.read(lambda tx: self._pool(tx, pools.get(tx, name)))

    async def _get_worker(self, name: str) -> pool_pb2.PoolWorker:
        return await self._database.read(lambda tx: self._worker(tx, pools.get_worker(tx, name)))

    def _all(self, tx: Transaction) -> list[pool_pb2.Pool]:
        return [self._pool(tx, row) for row in pools.list_all(tx)]

    def _pool(self, tx: Transaction, row: PoolRow) -> pool_pb2.Pool:
        pool = pool_message(tx, row, complete=self._discovery.complete(row.name))
        for worker in pool.workers:
            self._discovery.gpus.fill(worker, tx.now)
        return pool

    def _worker(self, tx: Transaction, row: WorkerRow) -> pool_pb2.PoolWorker:
        worker = worker_message(tx, row)
        self._discovery.gpus.fill(worker, tx.now)
        return worker


def _check(pool: pool_pb2.Pool) -> None:
    output_only.check(pool, SPEC, "pool")
    names.check_pool(pool.name, "pool.name")
    names.VersionName.parse(pool.model_version, "pool.model_version")
    for version in pool.earlier_versions:
        names.VersionName.parse(version, "pool.earlier_versions")
    if pool.variant not in VARIANTS:
        text = f"variant is {pool.variant!r}: use one of {', '.join(sorted(VARIANTS))}."
        raise InvalidRequest(text, field="pool.variant")
    if pool.max_workers < 0:
        raise InvalidRequest(f"max_workers is {pool.max_workers}: use 0 or more.", field="pool.max_workers")
    if len(pool.obstacle) > LONGEST_OBSTACLE or "\0" in pool.obstacle:
        text = f"obstacle has {len(pool.obstacle)} characters: use at most {LONGEST_OBSTACLE}, none NUL."
        raise InvalidRequest(text, field="pool.obstacle")
    for target in pool.worker_targets:
        host, _, port = target.rpartition(":")
        if not host or not is_name(host) or not port.isdecimal() or not 0 < int(port) < 65536:
            text = f"worker target {target!r} is not host:port, with a host that can be looked up."
            raise InvalidRequest(text, field="pool.worker_targets")


def _seconds(duration: Duration, given: bool, default: float, *, low: float, high: float, field: str) -> float:  # noqa: FBT001
    value = duration.ToMilliseconds() / 1000 if given else default
    if not low <= value <= high:
        raise InvalidRequest(f"{field} is {value} s: use {low:g} to {high:g} s.", field=field)
    return value
