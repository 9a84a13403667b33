"""The registry as a whole."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from wan22.errors import DataLoss
from wan22.server import Server
from wan22.v1 import model_pb2_grpc
from wan22_registry import layout_lock
from wan22_registry.blobs import BlobStore
from wan22_registry.model_servicer import ModelServicer
from wan22_registry.settings import RegistrySettings
from wan22_registry.versions import Versions

log = logging.getLogger(__name__)


@asynccontextmanager
async def serve(settings: RegistrySettings) -> AsyncIterator[Server]:
    """Runs a registry while the context lasts. Raises FailedPrecondition when another process owns the layout."""
    with layout_lock.own(settings.root):
        blobs = BlobStore(settings.root)
        versions = Versions(settings.root, blobs)
        try:
            gone = blobs.collect(versions.live_blobs(), set())
        except DataLoss as error:  # what a damaged manifest needs is unknown, so that nothing may go
            log.warning("Nothing is collected: %s", error.message)
            gone = []
        servicer = ModelServicer(blobs, versions)
        async with Server(
            [partial(model_pb2_grpc.add_ModelServiceServicer_to_server, servicer)],
            host=settings.host,
            port=settings.port,
            health_port=settings.health_port,
            strict=True,
            reflected=["wan22.v1.ModelService"] if settings.reflection else (),
        ) as server:
            server.set_ready(True)
            count = len(versions.list_all())
            text = "Serving %s on port %d: %d versions, %d blobs collected."
            log.info(text, settings.root, server.port, count, len(gone))
            yield server
