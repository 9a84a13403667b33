"""Starts the node cache: `python -m wan22_registry.node_cache`."""

from __future__ import annotations

import sys

from wan22.program import run_service
from wan22.server import until_stopped
from wan22_registry.node_cache.service import serve
from wan22_registry.node_cache.settings import NodeCacheSettings


async def run(settings: NodeCacheSettings) -> None:
    """Serves until SIGTERM or SIGINT."""
    async with serve(settings):
        await until_stopped()


def main() -> int:
    """Returns the exit code."""
    return run_service("wan22_registry.node_cache", "node-cache", NodeCacheSettings, run)


if __name__ == "__main__":
    sys.exit(main())
