"""What will run when: the whole queue of a pool played ahead by the same rules that the dispatcher follows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from wan22_gateway.scheduling.shares import Priority, Share, activated, by_turn, dispatched


class Waiting(NamedTuple):
    """A queued generation."""

    key: int
    seconds: float
    """Predicted seconds of worker time."""
    charge: float
    """Those that its tenant was not charged for yet: none when its worker was lost."""


@dataclass(frozen=True, slots=True)
class TenantQueue:
    """What one tenant has queued in a pool."""

    name: str
    share: Share
    waiting: Mapping[Priority, Sequence[Waiting]]
    """By priority, oldest first; no priority is empty."""
    weight: float = 1.0
    running: int = 0
    """Its generations that have a worker, in any pool."""
    max_running: int | None = None


def candidates(
    shares: Mapping[str, Share], waiting: Callable[[str], Mapping[Priority, Iterable[Waiting]]]
) -> Iterator[tuple[str, Priority, Waiting]]:
    """Yields what may run next, best first: the first that a free worker can take is the one to dispatch.

    `shares` are those of tenants that may have another worker; `waiting` gives one's queue by priority, oldest first.
    """
    for name in sorted(shares, key=lambda name: (shares[name].tag, name)):
        queue = waiting(name)
        for priority in by_turn(shares[name], queue):
            for generation in queue[priority]:
                yield name, priority, generation


@dataclass(frozen=True, slots=True)
class Place:
    """Where a generation stands."""

    position: int
    """1 is next."""
    start: float | None
    """Seconds until a worker starts it; None when that cannot be said: no worker is there."""


@dataclass(slots=True)
class _Lane:
    """A tenant while the queue is played ahead."""

    queue: TenantQueue
    share: Share
    running: int
    next: dict[Priority, int]
    left: int
    places: list[tuple[int, Priority, float]] = field(default_factory=list)
    """Of each of its generations: index in the order, priority, virtual start among the tenant's priorities."""
    last: dict[Priority, int] = field(default_factory=dict)
    """Which of `places` is the last of a priority."""

    def full(self) -> bool:
        limit = self.queue.max_running
        return limit is not None and self.running >= limit


class Plan:
    """The queue of a pool in the order of dispatch, with the time of each start."""

    def __init__(
        self, tenants: Sequence[TenantQueue], virtual_time: float, workers: Sequence[tuple[float, str]]
    ) -> None:
        """Plays ahead. `workers` are seconds until each is free, and the tenant whose generation it has, or ''."""
        self.order: list[int] = []
        """Keys, the next to run first."""
        self.starts: list[float] = []
        """Seconds until each starts; shorter than `order` where what is behind waits for something unforeseeable."""
        self.workers = len(workers)
        """How many workers take part."""
        self._virtual_time = self._began = virtual_time
        self._turns: list[tuple[float, str]] = []
        self._lanes = {
            tenant.name: _Lane(
                tenant,
                tenant.share,
                tenant.running,
                dict.fromkeys(tenant.waiting, 0),
                sum(len(waiting) for waiting in tenant.waiting.values()),
            )
            for tenant in tenants
        }
        ends = list(workers)
        heapify(ends)
        ready = [(lane.share.tag, name) for name, lane in self._lanes.items() if lane.left and not lane.full()]
        heapify(ready)
        self.free_at = self._play(ready, ends)
        """Seconds until a worker is free for what would come last; None when that cannot be said."""
        rest = [(lane.share.tag, name) for name, lane in self._lanes.items() if lane.left]
        heapify(rest)
        while rest:
            self._serve(rest, bounded=False)

    def place(self, name: str, priority: Priority, share: Share | None = None) -> Place:
        """Where one more generation of a tenant would stand; `share` is that of a tenant with nothing queued here.

        Exact as long as nobody has as many running as allowed.
        """
        lane = self._lanes.get(name)
        if lane is None or not lane.places:
            tag = activated(share or Share(), self._began).tag
            return self._at(bisect_right(self._turns, (tag, name)))
        served = lane.last.get(priority, -1)
        tags = (lane.queue.share if served < 0 else lane.share).priority_tags
        time = lane.queue.share.priority_time if served < 0 else lane.places[served][2]
        for index, other, other_tag in lane.places[served + 1 :]:
            if (max(tags[priority - 1], time), -priority) < (other_tag, -other):
                return self._at(index)
            time = other_tag
        return self._at(max(bisect_right(self._turns, (lane.share.tag, name)), lane.places[-1][0] + 1))

    def _at(self, index: int) -> Place:
        start = self.starts[index] if index < len(self.starts) else self.free_at
        return Place(index + 1, start if index <= len(self.starts) else None)

    def _play(self, ready: list[tuple[float, str]], ends: list[tuple[float, str]]) -> float | None:
        free, now = 0, 0.0
        total = sum(lane.left for lane in self._lanes.values())
        while ends:
            if len(self.order) == total:
                return now if free else ends[0][0]
            now, finished = heappop(ends)
            free += 1
            lane = self._lanes.get(finished)
            if lane is not None:
                lane.running -= 1
                if lane.left and lane.running + 1 == lane.queue.max_running:
                    heappush(ready, (lane.share.tag, finished))
            while free and ready:
                name, seconds = self._serve(ready)
                self.starts.append(now)
                heappush(ends, (now + seconds, name))
                free -= 1
        return None

    def _serve(self, ready: list[tuple[float, str]], *, bounded: bool = True) -> tuple[str, float]:
        _, name = heappop(ready)
        lane = self._lanes[name]
        waiting = lane.queue.waiting
        if len(lane.next) == 1:
            (priority,) = lane.next
        else:
            priority = by_turn(lane.share, lane.next)[0]
        generation = waiting[priority][lane.next[priority]]
        lane.last[priority] = len(lane.places)
        lane.places.append((len(self.order), priority, lane.share.priority_tag(priority)))
        self._turns.append((lane.share.tag, name))
        self.order.append(generation.key)
        lane.share, self._virtual_time = dispatched(
            lane.share, self._virtual_time, priority, generation.charge, lane.queue.weight
        )
        lane.next[priority] += 1
        if lane.next[priority] == len(waiting[priority]):
            del lane.next[priority]
        lane.left -= 1
        lane.running += 1
        if lane.left and not (bounded and lane.full()):
            heappush(ready, (lane.share.tag, name))
        return name, generation.seconds
