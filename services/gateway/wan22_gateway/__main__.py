"""Starts the gateway: `python -m wan22_gateway`."""

from __future__ import annotations

import sys

from wan22.program import run_service
from wan22.server import until_stopped
from wan22_gateway.gateway import serve
from wan22_gateway.settings import GatewaySettings


async def run(settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT."""
    async with serve(settings):
        await until_stopped()


def main() -> int:
    """Returns the exit code."""
    return run_service("wan22_gateway", "gateway", GatewaySettings, run)


if __name__ == "__main__":
    sys.exit(main())
