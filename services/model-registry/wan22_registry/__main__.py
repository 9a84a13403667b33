"""Starts the registry: `python -m wan22_registry`."""

from __future__ import annotations

import asyncio
import sys

from wan22.errors import Wan22Error
from wan22.server import configure_logging, until_stopped
from wan22_registry.registry import serve
from wan22_registry.settings import RegistrySettings


async def run(settings: RegistrySettings) -> None:
    """Serves until SIGTERM or SIGINT."""
    async with serve(settings):
        await until_stopped()


def main() -> int:
    """Returns the exit code."""
    settings = RegistrySettings.load("wan22_registry")
    configure_logging("registry")
    try:
        asyncio.run(run(settings))
    except Wan22Error as error:
        sys.stderr.write(f"wan22_registry: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
