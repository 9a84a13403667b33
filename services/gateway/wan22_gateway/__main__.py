"""Starts the gateway: `python -m wan22_gateway`."""

from __future__ import annotations

import asyncio
import sys

from wan22.errors import Wan22Error
from wan22.server import configure_logging, until_stopped
from wan22_gateway.gateway import serve
from wan22_gateway.settings import GatewaySettings


async def run(settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT."""
    async with serve(settings):
        await until_stopped()


def main() -> int:
    """Returns the exit code."""
    settings = GatewaySettings.load("wan22_gateway")
    configure_logging("gateway")
    try:
        asyncio.run(run(settings))
    except Wan22Error as error:
        sys.stderr.write(f"wan22_gateway: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
