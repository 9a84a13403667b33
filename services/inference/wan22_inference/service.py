"""Puts a worker together and serves it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from wan22.cache import Cache
from wan22.server import Server
from wan22.v1 import inference_pb2, inference_pb2_grpc
from wan22_inference.adapters import Adapters
from wan22_inference.compute import Compute
from wan22_inference.engine.devices import choose_device
from wan22_inference.engine.options import EngineOptions
from wan22_inference.inference_servicer import InferenceServicer
from wan22_inference.scratch import Scratch
from wan22_inference.settings import WorkerSettings
from wan22_inference.weights import Weights
from wan22_inference.worker import Identity, Timing, Worker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """A worker that answers."""

    worker: Worker
    server: Server


@asynccontextmanager
async def serve(settings: WorkerSettings) -> AsyncIterator[Service]:
    """A worker that answers at once, and loads its model meanwhile.

    Raises FailedPrecondition when another process has its scratch folder, InvalidRequest for a device that is not here.
    """
    compute = Compute(settings.threads)
    cache = Cache(settings.cache, settings.cache_quota_bytes)
    weights = Weights(
        settings.model,
        registry=settings.registry,
        tls=settings.tls,
        cache=cache,
        device=choose_device(settings.device),
        compute=compute,
        options=EngineOptions(
            threads=settings.threads,
            text_encoder=settings.text_encoder,
            vram_limit=settings.vram_limit,
            vae_decode_dtype=settings.vae_decode_dtype,
            vae_tile=settings.vae_tile,
            embedding_cache_bytes=settings.embedding_cache_bytes,
        ),
    )
    adapters = Adapters(settings.registry, cache, settings.adapter_cache_bytes, settings.tls)
    identity = Identity.make(settings.name, settings.uid, settings.pool)
    with Scratch(settings.scratch / settings.name.removeprefix("workers/")) as scratch:
        timing = Timing(settings.orphan_grace, settings.checkpoint_seconds)
        async with Worker(identity, weights, adapters, compute, scratch, timing) as worker:
            add = partial(inference_pb2_grpc.add_InferenceServiceServicer_to_server, InferenceServicer(worker))
            name = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name
            async with (
                Server(
                    [add],
                    host=settings.host,
                    port=settings.port,
                    health_port=settings.health_port,
                    tls=settings.tls,
                    peers=settings.tls_peers.split(","),
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
