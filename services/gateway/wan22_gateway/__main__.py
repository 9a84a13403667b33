"""Starts the gateway: `python -m wan22_gateway`."""

from __future__ import annotations

import ctypes
import gc
import sys

import uvloop

from wan22.program import run_service
from wan22.server import until_stopped
from wan22_gateway.gateway import serve
from wan22_gateway.settings import GatewaySettings

SWITCH_SECONDS = 0.001
"""How long a thread may keep the interpreter while another one waits for it: the event loop wants it back after each
look at its sockets, and with Python's own 5 ms every answer takes that long while a reader computes on a long queue."""

_M_ARENA_MAX = -8
"""Its name for glibc's mallopt."""


async def run(settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT."""
    sys.setswitchinterval(SWITCH_SECONDS)
    async with serve(settings):
        gc.collect()
        gc.freeze()  # what a start makes stays: looking at it again would stop every thread for a tenth of a second
        await until_stopped()


def share_heap() -> None:
    """Has all threads allocate from one heap: with eight each, the holes between what they keep grow for hours.

    Only glibc has several.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def main() -> int:
    """Returns the exit code."""
    share_heap()
    return run_service("wan22_gateway", "gateway", GatewaySettings, run, uvloop.new_event_loop)


if __name__ == "__main__":
    sys.exit(main())
