"""Takes from a process what it does not need, before it looks at what a stranger sent."""

from __future__ import annotations

import ctypes
import resource

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
REFUSED = 3
"""Exit code of a confined process that says on standard error why it refuses its input; a broken one has another."""
_libc = ctypes.CDLL(None)


def confine(memory_bytes: int, processor_seconds: int | None = None) -> None:
    """Limits this process's address space and processor time, for good; beyond the latter the kernel kills it.

    Also takes from it memory dumps, and the network where the kernel allows that: in many containers it does not.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    if processor_seconds is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (processor_seconds, processor_seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _libc.unshare(CLONE_NEWUSER | CLONE_NEWNET)
