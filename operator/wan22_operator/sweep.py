"""Finds what no event told of: pools without a loop, and pools of the gateway that are no resources any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from wan22.errors import FailedPrecondition, Wan22Error
from wan22.v1 import pool_pb2
from wan22_operator.budget import Budget
from wan22_operator.cluster import ApiFailure, Cluster
from wan22_operator.gateway import Gateway
from wan22_operator.names import PoolKey
from wan22_operator.pools import Pools
from wan22_operator.resources import POD, WAN_MODEL, WAN_POOL, Resource
from wan22_operator.settings import OperatorSettings

log = logging.getLogger(__name__)


class Sweep:
    """Compares lists, at the start and now and then."""

    def __init__(
        self,
        cluster: Cluster,
        gateway: Gateway,
        pools: Pools,
        models: Pools,
        budget: Budget,
        settings: OperatorSettings,
    ) -> None:
        self._cluster = cluster
        self._gateway = gateway
        self._pools = pools
        self._models = models
        self._budget = budget
        self._settings = settings
        self.due = asyncio.Event()
        """Set to have it done now."""

    async def run(self) -> None:
        """For ever."""
        while True:
            self.due.clear()
            try:
                await self._sweep()
            except ApiFailure as failure:
                log.warning("The pools cannot be listed: %s", failure.message)
            try:
                async with asyncio.timeout(self._settings.resync_seconds):
                    await self.due.wait()
            except TimeoutError:
                continue

    async def _sweep(self) -> None:
        claims = await self._budget.read()
        keys = await self._keys(WAN_POOL)
        for key in keys - self._pools.keys:
            self._pools.wake(key)
        models = await self._keys(WAN_MODEL)
        for key in models - self._models.keys:
            self._models.wake(key)
        await self._undeclare(keys)
        gone = claims.of_pools.keys() - keys
        ended = [key for key in gone if not await self._cluster.list(POD, key.namespace, labels=key.selector)]
        if ended:
            await self._budget.free(claims, ended)

    async def _keys(self, resource: Resource) -> set[PoolKey]:
        """Those of all namespaces that are looked after, as they are and not as they were: what is not there goes."""
        namespaces = self._settings.namespaces or (None,)
        return {PoolKey.of(found) for each in namespaces for found in await self._cluster.names(resource, each)}

    async def _undeclare(self, keys: Iterable[PoolKey]) -> None:
        """Takes from the gateway what was deleted here.

        At first it accepts nothing more. Its workers end what they run; once none answers any more, what still waits in
        its queue is refused. It goes when everything has come to its end.
        """
        wanted = {key.pool for key in keys}
        for name, view in self._gateway.views.items():
            namespace = name.removeprefix("pools/").partition(".")[0]
            if name in wanted or (self._settings.namespaces and namespace not in self._settings.namespaces):
                continue
            try:
                if view.pool.max_workers:
                    await self._gateway.apply(_closed(view.pool))
                alive = any(worker.alive for worker in view.pool.workers)
                await self._gateway.delete(name, refuse_queued=not alive)
            except FailedPrecondition as error:
                log.info("%s is not removed yet: %s", name, error.message)
            except Wan22Error as error:
                log.warning("%s cannot be removed from the gateway: %s", name, error.message)
            else:
                log.info("%s was removed from the gateway.", name)


def _closed(pool: pool_pb2.Pool) -> pool_pb2.Pool:
    closed = pool_pb2.Pool()
    closed.CopyFrom(pool)
    closed.ClearField("workers")
    closed.ClearField("demand")
    closed.max_workers = 0
    return closed
