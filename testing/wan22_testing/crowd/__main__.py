"""A crowd: `python -m wan22_testing.crowd --kubeconfig FILE --folder FOLDER --nodes N`.

A pod of image wan22/worker is a simulated worker; one of wan22/played is a worker for this process's own PoolService.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial

from wan22.program import run_service
from wan22.server import Server, until_stopped
from wan22.v1 import pool_pb2_grpc
from wan22_testing.crowd.pool_servicer import PlayedPools
from wan22_testing.crowd.settings import CrowdSettings
from wan22_testing.crowd.workers import played, simulate
from wan22_testing.process_kubelet.images import Image
from wan22_testing.process_kubelet.node import NodeSpec
from wan22_testing.process_kubelet.nodes import Nodes


async def run(settings: CrowdSettings) -> None:
    """Serves until SIGTERM or SIGINT."""
    pools = PlayedPools()
    images = {
        "wan22/worker": Image((), hosted=simulate),
        "wan22/played": Image((), hosted=played(pools, settings.load_seconds)),
    }
    nodes = Nodes(
        settings.kubeconfig,
        settings.folder,
        nodes=[
            NodeSpec(f"crowd-{number}", gpus=settings.gpus, cpus=10_000, memory="64Ti", pods=settings.gpus)
            for number in range(settings.nodes)
        ],
        images=images,
        heartbeat_seconds=settings.heartbeat_seconds,
    )
    registered, stopped = asyncio.Event(), asyncio.Event()
    add = partial(pool_pb2_grpc.add_PoolServiceServicer_to_server, pools)
    serving = Server([add], host=settings.host, port=settings.port, health_port=settings.health_port)
    async with serving as server, asyncio.TaskGroup() as group:
        group.create_task(nodes.run(registered, stopped))
        await registered.wait()
        server.set_ready(True)
        await until_stopped()
        stopped.set()


def main() -> int:
    """Returns the exit code."""
    return run_service("wan22_testing.crowd", "crowd", CrowdSettings, run)


if __name__ == "__main__":
    sys.exit(main())
