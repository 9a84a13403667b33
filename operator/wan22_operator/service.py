"""The operator as a whole."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from kubernetes.aio.client import Configuration

from wan22.errors import InternalError, Unavailable
from wan22.health import Health
from wan22.metrics_server import serving_metrics
from wan22.model_client import ModelClient
from wan22_operator.budget import Budget
from wan22_operator.caches import Caches
from wan22_operator.cluster import Cluster, load_configuration
from wan22_operator.gateway import Gateway
from wan22_operator.handlers import watch
from wan22_operator.lease import Lease
from wan22_operator.memory import Memory
from wan22_operator.metrics import Metrics
from wan22_operator.model_reconcile import ModelReconciler
from wan22_operator.models import Models
from wan22_operator.names import PoolKey
from wan22_operator.nodes import Node, Nodes
from wan22_operator.observed import Sources
from wan22_operator.pods import Pods
from wan22_operator.pools import Pools
from wan22_operator.reconcile import Reconciler
from wan22_operator.recorder import Recorder
from wan22_operator.resources import WAN_MODEL, WAN_POOL
from wan22_operator.settings import OperatorSettings
from wan22_operator.sweep import Sweep

log = logging.getLogger(__name__)
REGISTRY_PATIENCE = 2.0
"""Seconds for which a round waits for a registry that does not answer."""
STUCK_SECONDS = 120.0
"""Beyond some rounds' time: no round at all has ended for so long, so something is stuck, and a restart is safe."""


class Operator:
    """The parts, and what wakes what."""

    def __init__(
        self, cluster: Cluster, gateway: Gateway, models: ModelClient, settings: OperatorSettings, metrics: Metrics
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self._gateway = gateway
        self._nodes = Nodes(cluster)
        self._ready: dict[str, bool] = {}
        self.caches = Caches(cluster, settings.tls)
        resolved = Models(models, settings.resolve_seconds)
        self._pods = Pods(cluster, settings.namespaces, self.pool_event)
        sources = Sources(cluster, gateway, resolved, self._pods, self._nodes, self.caches, settings)
        budget = Budget(cluster, settings)
        recorder = Recorder(cluster, settings.identity)
        self._reconciler = Reconciler(sources, recorder, self.metrics, budget)
        self._model_reconciler = ModelReconciler(sources, recorder)
        self.models = Pools(WAN_MODEL.kind, self._model_reconciler.reconcile, settings.resync_seconds, self.metrics)
        self.pools = Pools(WAN_POOL.kind, self._round, settings.resync_seconds, self.metrics)
        self._sweep = Sweep(cluster, gateway, self.pools, self.models, budget, settings)

    def pool_event(self, key: PoolKey) -> None:
        """A WanPool, or a pod of it, has changed."""
        self.pools.wake(key)

    def children_event(self, key: PoolKey) -> None:
        """A shared object of a pool has changed."""
        self.pools.wake(key, children=True)

    def model_event(self, key: PoolKey) -> None:
        """A WanModel has changed."""
        self.models.wake(key)

    def node_event(self, manifest: Mapping[str, Any]) -> None:
        """Of a node only its readiness matters at once."""
        node = Node.parse(manifest)
        if self._ready.get(node.name) is not node.ready:
            self._ready[node.name] = node.ready
            self._nodes.forget()
            self.pools.wake_all()

    def gateway_event(self, pool: str) -> None:
        """What the gateway says of a pool has changed."""
        namespace, _, name = pool.removeprefix("pools/").partition(".")
        self.pools.wake_known(PoolKey(namespace, name))

    async def run(self, configuration: Configuration) -> None:
        """Works until SIGTERM or SIGINT."""
        async with asyncio.TaskGroup() as group, self.pools, self.models:
            running = (self._pods.run(), self._gateway.run(self.gateway_event), self._sweep.run(), self._watchdog())
            tasks = [group.create_task(part) for part in running]
            await watch(self, configuration, self.settings)
            for task in tasks:
                task.cancel()

    async def _round(self, key: PoolKey, memory: Memory) -> bool:
        goes_on = await self._reconciler.reconcile(key, memory)
        if not goes_on:
            self._sweep.due.set()
        return goes_on

    async def _watchdog(self) -> None:
        limit = 4 * self.settings.resync_seconds + STUCK_SECONDS
        while True:
            await asyncio.sleep(self.settings.resync_seconds)
            if self.pools.keys and time.monotonic() - self.pools.last_round > limit:
                raise InternalError(f"No pool was looked at for {limit:.0f} s: the operator is stuck, and starts anew.")


@asynccontextmanager
async def parts(settings: OperatorSettings) -> AsyncIterator[tuple[Operator, Cluster]]:
    """The operator's parts, connected while the context lasts."""
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        configuration = await load_configuration(settings.kubeconfig)
        cluster = await stack.enter_async_context(Cluster(configuration, metrics.requested))
        registry = ModelClient(
            settings.registry, settings.tls, first_patience=REGISTRY_PATIENCE, patience=REGISTRY_PATIENCE
        )
        models = await stack.enter_async_context(registry)
        gateway = Gateway(settings.gateway, settings.tls, settings.api_key.get_secret_value())
        await stack.enter_async_context(gateway)
        operator = Operator(cluster, gateway, models, settings, metrics)
        stack.push_async_callback(operator.caches.close)
        yield operator, cluster


async def run(settings: OperatorSettings) -> None:
    """Waits for the Lease, and works until SIGTERM or SIGINT. Raises Unavailable when the Lease is lost."""
    async with (
        parts(settings) as (operator, cluster),
        Cluster(cluster.configuration, operator.metrics.requested) as apart,  # the Lease waits for no round's calls
        Health(settings.host, settings.health_port) as health,
    ):
        with serving_metrics(health, operator.metrics.registry, settings.host, settings.http_port):
            health.ready = True
            lease = Lease(apart, settings)
            await lease.acquire()
            operator.metrics.leads(True)
            working = asyncio.create_task(operator.run(cluster.configuration))
            lost = asyncio.create_task(lease.keep())
            try:
                await asyncio.wait([working, lost], return_when=asyncio.FIRST_COMPLETED)
                if lost.done():
                    raise Unavailable("The Lease is lost: this operator starts anew, and waits for it.")
                await working
            finally:
                lost.cancel()
                working.cancel()
                await asyncio.gather(working, lost, return_exceptions=True)
                await lease.release()
