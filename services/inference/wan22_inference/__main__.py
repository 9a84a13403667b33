"""The worker process: `python -m wan22_inference --pool pools/NAMESPACE.NAME --model MODEL[:TAG]`."""

from __future__ import annotations

import sys

from wan22.program import run_service
from wan22_inference.engine.device_context import device_context
from wan22_inference.settings import WorkerSettings


async def run(settings: WorkerSettings) -> None:
    """Serves until SIGTERM or SIGINT, then until what is held is released or the drain time is over."""
    with device_context(settings.device):
        from wan22_inference.service import serve  # noqa: PLC0415  # torch, and all that needs it
    async with serve(settings) as service:
        await service.until_stopped(settings.drain_seconds)


def main() -> int:
    """Returns the exit code."""
    return run_service("wan22_inference", "worker", WorkerSettings, run)


if __name__ == "__main__":
    sys.exit(main())
