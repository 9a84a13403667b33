"""How a worker's engine runs: the same for all its generations, and part of what decides their bits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Options whose change may change bits; each is a setting of the worker."""

    threads: int = 1
    """Threads of a computation on the CPU."""
