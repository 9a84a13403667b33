"""The registry as a whole."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

from wan22.folder_lock import lock_folder
from wan22.metrics_server import process_metrics, serving_metrics
from wan22.server import Server
from wan22.v1 import model_pb2_grpc
from wan22_registry.blobs import BlobStore
from wan22_registry.metrics import RegistryMetrics, StoredVersions
from wan22_registry.model_servicer import ModelServicer
from wan22_registry.roles import peers_of
from wan22_registry.scrubber import Scrubber
from wan22_registry.settings import RegistrySettings
from wan22_registry.versions import Versions

log = logging.getLogger(__name__)


@asynccontextmanager
async def serve(settings: RegistrySettings) -> AsyncIterator[Server]:
    """Runs a registry while the context lasts. Raises FailedPrecondition when another process owns the layout."""
    lock = lock_folder(settings.root, "layout", "registry", "--root")
    try:
        blobs = BlobStore(settings.root, settings.quota_bytes)
        versions = Versions(settings.root, blobs)
        dropped = [*blobs.remove_temporaries(), *blobs.drop_parts()]
        collected = versions.collect(set())
        metrics = process_metrics()
        metrics.register(StoredVersions(blobs, versions, settings.quota_bytes))
        counters = RegistryMetrics(metrics)
        counters.collected.inc(len(collected))
        servicer = ModelServicer(blobs, versions, counters)
        async with Server(
            [partial(model_pb2_grpc.add_ModelServiceServicer_to_server, servicer)],
            host=settings.host,
            port=settings.port,
            health_port=settings.health_port,
            tls=settings.tls,
            peers=peers_of(settings),
            strict=True,
            reflected=["wan22.v1.ModelService"] if settings.reflection else (),
        ) as server:
            server.set_ready(True)
            count = len(versions.list_all())
            log.info("Serving %s on port %d: %d versions.", settings.root, server.port, count)
            if dropped or collected:
                log.info("Removed %d unfinished files and %d blobs of no version.", len(dropped), len(collected))
            scrubber = Scrubber(blobs, versions, settings.scrub_bytes_per_second, counters)
            with serving_metrics(server, metrics, settings.host, settings.http_port), scrubbing(settings, scrubber):
                yield server
    finally:
        os.close(lock)


@contextmanager
def scrubbing(settings: RegistrySettings, scrubber: Scrubber) -> Iterator[None]:
    """Re-reads what is stored while the context lasts, if the settings ask for it."""
    if not settings.scrub_bytes_per_second:
        yield
        return
    task = asyncio.create_task(scrubber.run(settings.scrub_interval_hours * 3600))
    try:
        yield
    finally:
        task.cancel()
