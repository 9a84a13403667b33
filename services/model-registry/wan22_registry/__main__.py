"""Starts the registry: `python -m wan22_registry`."""

from __future__ import annotations

import sys

from wan22.program import run_service
from wan22.server import until_stopped
from wan22_registry.registry import serve
from wan22_registry.settings import RegistrySettings


async def run(settings: RegistrySettings) -> None:
    """Serves until SIGTERM or SIGINT."""
    async with serve(settings):
        await until_stopped()


def main() -> int:
    """Returns the exit code."""
    return run_service("wan22_registry", "registry", RegistrySettings, run)


if __name__ == "__main__":
    sys.exit(main())
