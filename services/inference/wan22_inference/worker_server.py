"""Serves a worker, whatever makes its videos."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from wan22.peers import Peers
from wan22.server import Server, until_stopped
from wan22.v1 import inference_pb2, inference_pb2_grpc
from wan22_inference.inference_servicer import InferenceServicer
from wan22_inference.renderer import Renderer
from wan22_inference.scratch import Scratch
from wan22_inference.settings import WorkerSettings
from wan22_inference.worker import Identity, Worker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """A worker that answers."""

    worker: Worker
    server: Server

    async def until_stopped(self, drain_seconds: float) -> None:
        """Returns after SIGTERM or SIGINT, once what is held is released or the drain time is over."""
        await until_stopped()
        self.worker.drain()
        await self.worker.until_empty(drain_seconds)


@asynccontextmanager
async def serve_worker(settings: WorkerSettings, renderer: Renderer) -> AsyncIterator[Service]:
    """A worker that answers at once, and loads its model meanwhile.

    Raises FailedPrecondition when another process has its scratch folder.
    """
    identity = Identity.make(settings.name, settings.uid, settings.pool)
    with Scratch(settings.scratch / settings.name.removeprefix("workers/")) as scratch:
        async with Worker(identity, renderer, scratch, settings.orphan_grace) as worker:
            add = partial(inference_pb2_grpc.add_InferenceServiceServicer_to_server, InferenceServicer(worker))
            name = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name
            async with (
                Server(
                    [add],
                    host=settings.host,
                    port=settings.port,
                    health_port=settings.health_port,
                    tls=settings.tls,
                    peers=Peers.of(settings.tls_peers),
                    reflected=[name] if settings.reflection else [],
                ) as server,
                asyncio.TaskGroup() as tasks,
            ):
                log.info("%s of %s serves on port %d.", identity.name, identity.pool, server.port)
                readiness = tasks.create_task(_follow_readiness(worker, server))
                yield Service(worker, server)
                readiness.cancel()


async def _follow_readiness(worker: Worker, server: Server) -> None:
    """Keeps what the health service says true."""
    while True:
        server.set_ready(worker.ready)
        await worker.changed.wait()
