"""Weighted fair shares by start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996), between tenants and within one.

A tenant's tag is the GPU-seconds that it was given, over its weight; the smallest tag is served next. The pool's
virtual time is the tag of whom it served last, and who comes back after a pause starts from there: a pause saves
nothing up. Within a tenant its three priorities share in the same way, so that a priority orders a tenant's own work
and takes nothing from others. Ageing is in the tags: that of a waiting priority stands still while those of the served
ones grow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple


class Priority(IntEnum):
    """generation_pb2.Generation.Priority, by number."""

    LOW = 1
    NORMAL = 2
    HIGH = 3


PRIORITY_WEIGHTS: Mapping[Priority, float] = MappingProxyType(
    {Priority.HIGH: 16.0, Priority.NORMAL: 4.0, Priority.LOW: 1.0}
)
"""Shares of a tenant's GPU-seconds while all three wait: LOW always gets a 21st, so nothing waits for ever."""


class Share(NamedTuple):
    """What a tenant has had of one pool, in virtual seconds; a new tenant's is all zero."""

    tag: float = 0.0
    """The tenant's next virtual start."""
    priority_time: float = 0.0
    """Virtual time among its priorities."""
    priority_tags: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """The next virtual start of LOW, NORMAL and HIGH, as far as they have had anything."""

    def priority_tag(self, priority: Priority) -> float:
        """The virtual start of a priority's next generation: a priority that paused has saved nothing up either."""
        return max(self.priority_tags[priority - 1], self.priority_time)


def activated(share: Share, virtual_time: float) -> Share:
    """The share of a tenant that had nothing queued and now has: what it did not use is gone."""
    return share._replace(tag=max(share.tag, virtual_time))


def by_turn(share: Share, priorities: Iterable[Priority]) -> list[Priority]:
    """A tenant's priorities, the next to be served first."""
    return sorted(priorities, key=lambda priority: (share.priority_tag(priority), -priority))


def dispatched(
    share: Share, virtual_time: float, priority: Priority, seconds: float, weight: float
) -> tuple[Share, float]:
    """The share and the pool's virtual time once a generation of so many predicted seconds is given to a worker.

    A tenant that lags behind, because it may not run more at once, catches up by one generation at most.
    """
    cost = seconds / weight
    start = max(share.tag, virtual_time - cost)
    priority_start = share.priority_tag(priority)
    priority_end = priority_start + seconds / PRIORITY_WEIGHTS[priority]
    low, normal, high = share.priority_tags
    if priority == Priority.NORMAL:
        normal = priority_end
    elif priority == Priority.HIGH:
        high = priority_end
    else:
        low = priority_end
    end = max(share.tag + cost, virtual_time)  # start + cost, without what taking off and adding again rounds
    return Share(end, priority_start, (low, normal, high)), max(virtual_time, start)


def settled(share: Share, seconds: float, weight: float) -> Share:
    """The share once it is known how many seconds more (or, negative, fewer) were used than it was charged for."""
    return share._replace(tag=share.tag + seconds / weight)
