"""The worker process: `python -m wan22_inference --pool pools/NAMESPACE.NAME --model MODEL[:TAG]`."""

from __future__ import annotations

import asyncio
import logging
import sys
from functools import partial

from wan22.errors import Wan22Error
from wan22.server import Server, configure_logging, until_stopped
from wan22.v1 import inference_pb2, inference_pb2_grpc
from wan22_inference.compute import Compute
from wan22_inference.engine.devices import choose_device
from wan22_inference.inference_servicer import InferenceServicer
from wan22_inference.scratch import Scratch
from wan22_inference.settings import WorkerSettings
from wan22_inference.weights import Weights
from wan22_inference.worker import Identity, Worker

log = logging.getLogger(__name__)


async def serve(settings: WorkerSettings) -> None:
    """Serves until SIGTERM or SIGINT, then until what is held is released or the drain time is over."""
    compute = Compute(settings.threads)
    weights = Weights(
        settings.model,
        registry=settings.registry,
        cache=settings.cache,
        device=choose_device(settings.device),
        compute=compute,
    )
    identity = Identity.make(settings.name, settings.uid, settings.pool)
    with Scratch(settings.scratch / settings.name.removeprefix("workers/")) as scratch:
        async with Worker(identity, weights, compute, scratch, settings.orphan_grace) as worker:
            add = partial(inference_pb2_grpc.add_InferenceServiceServicer_to_server, InferenceServicer(worker))
            reflected = [inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name]
            async with Server(
                [add],
                host=settings.host,
                port=settings.port,
                health_port=settings.health_port,
                reflected=reflected if settings.reflection else [],
            ) as server:
                log.info("%s of %s serves on port %d.", identity.name, identity.pool, server.port)
                async with asyncio.TaskGroup() as tasks:
                    readiness = tasks.create_task(follow_readiness(worker, server))
                    await until_stopped()
                    worker.drain()
                    await worker.until_empty(settings.drain_seconds)
                    readiness.cancel()


async def follow_readiness(worker: Worker, server: Server) -> None:
    """Keeps what the health service says true."""
    while True:
        server.set_ready(worker.ready)
        await worker.changed.wait()


def main() -> None:
    """The command line."""
    settings = WorkerSettings.load("wan22_inference")
    configure_logging("worker")
    try:
        asyncio.run(serve(settings))
    except Wan22Error as error:
        sys.exit(f"wan22_inference: {error.message}")


if __name__ == "__main__":
    main()
