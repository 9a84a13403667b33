"""The worker process: `python -m wan22_inference --pool pools/NAMESPACE.NAME --model MODEL[:TAG]`."""

from __future__ import annotations

import asyncio
import sys

from wan22.errors import Wan22Error
from wan22.server import configure_logging, until_stopped
from wan22_inference.service import serve
from wan22_inference.settings import WorkerSettings


async def run(settings: WorkerSettings) -> None:
    """Serves until SIGTERM or SIGINT, then until what is held is released or the drain time is over."""
    async with serve(settings) as service:
        await until_stopped()
        service.worker.drain()
        await service.worker.until_empty(settings.drain_seconds)


def main() -> int:
    """Returns the exit code."""
    settings = WorkerSettings.load("wan22_inference")
    configure_logging("worker")
    try:
        asyncio.run(run(settings))
    except Wan22Error as error:
        sys.stderr.write(f"wan22_inference: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
