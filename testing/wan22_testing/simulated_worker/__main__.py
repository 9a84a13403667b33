"""A simulated worker: `python -m wan22_testing.simulated_worker --pool pools/NAMESPACE.NAME --model MODEL[:TAG]`."""

from __future__ import annotations

import sys

from wan22.program import run_service
from wan22_inference.worker_server import serve_worker
from wan22_testing.simulated_worker.renderer import SimulatedRenderer
from wan22_testing.simulated_worker.settings import SimulatedWorkerSettings


async def run(settings: SimulatedWorkerSettings) -> None:
    """Serves until SIGTERM or SIGINT, then until what is held is released or the drain time is over."""
    async with serve_worker(settings, SimulatedRenderer(settings)) as service:
        await service.until_stopped(settings.drain_seconds)


def main() -> int:
    """Returns the exit code."""
    return run_service("wan22_testing.simulated_worker", "worker", SimulatedWorkerSettings, run)


if __name__ == "__main__":
    sys.exit(main())
