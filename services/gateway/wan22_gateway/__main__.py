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

_MALLOPT = {-8: 1, -3: 64 << 10, -1: 128 << 10}
"""Of glibc: M_ARENA_MAX, one heap for all threads; M_MMAP_THRESHOLD, above which an allocation is a mapping of its own,
as chunks of videos are; M_TRIM_THRESHOLD, of free memory at the heap's end that goes back. Left alone, glibc has eight
heaps a processor and raises the other two by what it sees, and holes between what is kept grow for hours."""


async def run(settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT."""
    sys.setswitchinterval(SWITCH_SECONDS)
    async with serve(settings):
        gc.collect()
        gc.freeze()  # what a start makes stays: looking at it again would stop every thread for a tenth of a second
        await until_stopped()


def keep_heap_small() -> None:
    """Sets what glibc allocates by, where that is the C library; before there are threads."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for name, value in _MALLOPT.items():
            mallopt(name, value)


def main() -> int:
    """Returns the exit code."""
    keep_heap_small()
    return run_service("wan22_gateway", "gateway", GatewaySettings, run, uvloop.new_event_loop)


if __name__ == "__main__":
    sys.exit(main())
