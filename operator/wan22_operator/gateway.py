"""The gateway as the operator knows it: its pools and their demand, streamed, and the calls that declare and drain."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.protobuf.duration_pb2 import Duration

from wan22.channels import open_channel
from wan22.errors import InvalidRequest, NotFound, Reason, Wan22Error
from wan22.status import from_rpc_error
from wan22.tls import Tls
from wan22.v1 import pool_pb2, pool_pb2_grpc

if TYPE_CHECKING:
    from wan22.v1.pool_pb2_grpc import PoolServiceAsyncStub  # is in the stub file only

log = logging.getLogger(__name__)
CALL_SECONDS = 10.0
MAX_INTERVAL_SECONDS = 5.0
"""Longest silence of the stream."""
SILENCE_SECONDS = 3 * MAX_INTERVAL_SECONDS
"""A stream that is silent for so long is half-open: another one is opened."""
RETRY_SECONDS = 1.0
LONGEST_MESSAGE = 64 << 20
"""Bytes: a message of the stream has all pools, some 10 KB each where their queues are long."""
DRAIN_LEASE_SECONDS = 120.0
"""How long a fence holds without being renewed: some rounds of the operator."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """One pool as the gateway said it at a time of ours; seconds since the epoch."""

    pool: pool_pb2.Pool
    time: float
    gist: object = field(default=None, repr=False, compare=False)
    """What of it wakes the pool's loop."""


class Gateway:
    """One gateway; use as an async context manager and `run` beside it. Calls raise errors of wan22.errors."""

    def __init__(self, target: str, tls: Tls | None, api_key: str) -> None:
        self.target = target
        self._tls = tls
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()
        self._views: dict[str, PoolView] = {}
        self.error: str | None = "The gateway has not been asked yet."
        """Why there is no stream now; None while there is one."""

    async def __aenter__(self) -> Self:
        self._channel = open_channel(self.target, self._tls, longest_message=LONGEST_MESSAGE)
        self._stub: PoolServiceAsyncStub = pool_pb2_grpc.PoolServiceStub(self._channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    @property
    def views(self) -> Mapping[str, PoolView]:
        """What was said last, by the pool's name."""
        return MappingProxyType(self._views)

    async def run(self, changed: Callable[[str], None]) -> None:
        """Follows the pools for ever; `changed` hears which has news that may change a decision."""
        while True:
            try:
                await self._follow(changed)
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                text = from_rpc_error(error).message if isinstance(error, grpc.aio.AioRpcError) else "it is silent"
                if self.error is None:
                    log.warning("The gateway's figures stop: %s", text)
                self.error = f"The gateway {self.target} does not answer: {text}"
            await asyncio.sleep(RETRY_SECONDS)

    async def apply(self, pool: pool_pb2.Pool) -> None:
        """Declares a pool; to a gateway of the release before, which refuses these, without versions and obstacle."""
        try:
            await self._call(self._stub.ApplyPool, pool_pb2.ApplyPoolRequest(pool=pool))
        except InvalidRequest as error:
            if error.reason is not Reason.UNKNOWN_FIELD or not (pool.earlier_versions or pool.obstacle):
                raise
            plain = pool_pb2.Pool()
            plain.CopyFrom(pool)
            plain.ClearField("earlier_versions")
            plain.ClearField("obstacle")
            await self._call(self._stub.ApplyPool, pool_pb2.ApplyPoolRequest(pool=plain))

    async def delete(self, name: str, *, refuse_queued: bool) -> None:
        """Removes a pool; one that is gone already is removed. Raises FailedPrecondition with unfinished work.

        With `refuse_queued` what waits in its queue fails, and only what runs is unfinished work.
        """
        request = pool_pb2.DeletePoolRequest(name=name, refuse_queued=refuse_queued)
        try:
            await self._call(self._stub.DeletePool, request)
        except NotFound:
            return

    async def drain(self, worker: str, *, claimed: bool) -> pool_pb2.PoolWorker:
        """Fences a worker for a while, and returns it as it is now.

        One that has a generation raises FailedPrecondition (WORKER_CLAIMED) unless `claimed`, one that the gateway has
        never heard of NotFound.
        """
        lease = Duration()
        lease.FromMilliseconds(round(DRAIN_LEASE_SECONDS * 1000))
        request = pool_pb2.DrainWorkerRequest(name=worker, lease=lease, allow_claimed=claimed)
        answer: pool_pb2.PoolWorker = await self._call(self._stub.DrainWorker, request)
        return answer

    async def undrain(self, worker: str) -> None:
        """Ends a fence."""
        await self._call(self._stub.UndrainWorker, pool_pb2.UndrainWorkerRequest(name=worker))

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=CALL_SECONDS, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            failure: Wan22Error = from_rpc_error(error)
            raise failure from error

    async def _follow(self, changed: Callable[[str], None]) -> None:
        interval = Duration()
        interval.FromMilliseconds(round(MAX_INTERVAL_SECONDS * 1000))
        request = pool_pb2.WatchPoolsRequest(max_interval=interval)
        answers = self._stub.WatchPools(request, metadata=self._metadata).__aiter__()
        while True:
            async with asyncio.timeout(SILENCE_SECONDS):
                try:
                    answer = await anext(answers)
                except StopAsyncIteration:
                    return
            self._take(answer, changed)

    def _take(self, answer: pool_pb2.WatchPoolsResponse, changed: Callable[[str], None]) -> None:
        if self.error is not None:
            log.info("The gateway %s tells its figures.", self.target)
        self.error = None
        now = time.time()
        before, self._views = self._views, {pool.name: PoolView(pool, now, _gist(pool)) for pool in answer.pools}
        for name in before.keys() | self._views.keys():
            old, new = before.get(name), self._views.get(name)
            if old is None or new is None or old.gist != new.gist:
                changed(name)


def _gist(pool: pool_pb2.Pool) -> object:
    """What wakes a pool's loop: the first that waits, and what workers do. Longer queues are seen in time."""
    workers = [(w.name, w.uid, w.state, w.alive, w.generation, w.HasField("drain_expire_time")) for w in pool.workers]
    spec = (pool.model_version, pool.max_workers, pool.default_for_variant, pool.distilled, tuple(pool.worker_targets))
    earlier = [(work.model_version, bool(work.queued)) for work in pool.demand.earlier]
    versions = (tuple(pool.earlier_versions), *earlier)
    return bool(pool.demand.queued), pool.demand.complete, pool.demand.store_epoch, workers, spec, versions
