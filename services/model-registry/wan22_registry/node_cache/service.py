"""The node cache as a whole."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from wan22.cache import Cache
from wan22.folder_lock import lock_folder
from wan22.metrics_server import process_metrics, serving_metrics
from wan22.model_client import ModelClient
from wan22.peers import Peers
from wan22.server import Server
from wan22.v1 import cache_pb2_grpc
from wan22_registry.node_cache.cache_servicer import CacheServicer
from wan22_registry.node_cache.keeper import Keeper
from wan22_registry.node_cache.kept_version import check_reference
from wan22_registry.node_cache.metrics import CacheMetrics
from wan22_registry.node_cache.settings import NodeCacheSettings
from wan22_registry.node_cache.wanted import Wanted

log = logging.getLogger(__name__)


@asynccontextmanager
async def serve(settings: NodeCacheSettings) -> AsyncIterator[Server]:
    """Runs a node cache while the context lasts.

    Raises FailedPrecondition when another node cache has the folder, InvalidRequest when the settings name no version.
    """
    fixed = [check_reference(reference) for reference in settings.prefetch]
    lock = lock_folder(settings.root, "cache folder", "node cache", "--root")
    try:
        cache, wanted = Cache(settings.root, settings.quota_bytes), Wanted(settings.root)
        asked = wanted.read()
        async with ModelClient(settings.registry, settings.tls) as client:
            keeper = Keeper(cache, client, settings.retry_seconds)
            for reference in [*fixed, *asked]:
                keeper.keep(reference)
            servicer = CacheServicer(keeper, cache, wanted, fixed, settings.quota_bytes)
            metrics = process_metrics()
            metrics.register(CacheMetrics(cache, keeper, settings.quota_bytes))
            async with Server(
                [partial(cache_pb2_grpc.add_CacheServiceServicer_to_server, servicer)],
                host=settings.host,
                port=settings.port,
                health_port=settings.health_port,
                tls=settings.tls,
                peers=Peers.of(settings.tls_peers),
                strict=True,
                reflected=["wan22.v1.CacheService"] if settings.reflection else (),
            ) as server:
                server.set_ready(True)
                log.info("Keeping %d versions in %s, port %d.", len(keeper.kept), settings.root, server.port)
                with serving_metrics(server, metrics, settings.host, settings.http_port):
                    async with _working(keeper, settings):
                        yield server
    finally:
        os.close(lock)


@asynccontextmanager
async def _working(keeper: Keeper, settings: NodeCacheSettings) -> AsyncIterator[None]:
    """Pulls and re-reads while the context lasts, then gives every lock back; an error of ours ends the process."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(keeper.run())]
            if rate := settings.verify_bytes_per_second:
                interval = settings.verify_interval_hours * 3600
                tasks.append(group.create_task(keeper.verify_for_ever(rate, interval)))
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
    finally:
        keeper.close()
