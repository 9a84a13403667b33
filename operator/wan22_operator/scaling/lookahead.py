"""List scheduling: whether each generation starts in time, first come, first served, with so many workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapreplace


@dataclass(frozen=True, slots=True)
class Job:
    """A generation that waits, or one that is expected."""

    seconds: float
    """Of worker time."""
    start_by: float
    """Seconds from now."""


def all_start_in_time(free: Sequence[float], jobs: Sequence[Job]) -> bool:
    """Whether each job starts by its `start_by` on workers that are free in so many seconds.

    More workers, or workers that are free earlier, never make a job start later, and fewer jobs neither (the anomalies
    of Graham 1969 need precedence between jobs): so a search for the least number may bisect.
    """
    heap = sorted(free)
    for job in jobs:
        if not heap or heap[0] > job.start_by:
            return False
        heapreplace(heap, heap[0] + job.seconds)
    return True


def least_workers(free: Sequence[float], jobs: Sequence[Job], least: int, most: int, new_worker_in: float) -> int:
    """The fewest workers in [least, most] with which each job starts in time; `most` where even they are too few.

    `free` holds the present workers' times, soonest first: the fewest are those that are free first, and, beyond the
    present ones, new workers that are free in `new_worker_in` seconds.
    """
    if least >= most:
        return most
    enough = min(most, max(least, len(free) + len(jobs)))

    def fits(count: int) -> bool:
        return all_start_in_time([*free[:count], *[new_worker_in] * (count - len(free))], jobs)

    low, high = least, enough
    if fits(low):
        return low
    while low + 1 < high:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle
    return high if high < enough or fits(high) else most
