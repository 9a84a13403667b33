"""Many simulated workers in one process, each with a port of its own: prints all ports once each is loaded."""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from wan22_bench.gateway.servers import POOL
from wan22_inference.worker_server import serve_worker
from wan22_testing.simulated_pool import VARIANT, VERSION
from wan22_testing.simulated_worker.renderer import SimulatedRenderer
from wan22_testing.simulated_worker.settings import SimulatedWorkerSettings


async def serve(count: int, scratch: Path, time_scale: float) -> None:
    """Serves until it is killed."""
    async with AsyncExitStack() as stack:
        ports = []
        for number in range(count):
            settings = SimulatedWorkerSettings(
                port=0,
                health_port=0,
                name=f"workers/w{number}",
                uid=f"uid-w{number}",
                pool=POOL,
                model=VERSION,
                variant=VARIANT,
                scratch=scratch,
                time_scale=time_scale,
            )
            service = await stack.enter_async_context(serve_worker(settings, SimulatedRenderer(settings)))
            ports.append(service.server.port)
        sys.stdout.write(" ".join(map(str, ports)) + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--time-scale", type=float, required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.count, options.scratch, options.time_scale))
