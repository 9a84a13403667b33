"""Queues of all kinds, and a pool that is run by the scheduling rules without a store."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush

from hypothesis import strategies as st

from wan22_gateway.scheduling.plan import TenantQueue, Waiting, candidates
from wan22_gateway.scheduling.shares import Priority, Share, activated, dispatched, settled

seconds = st.floats(0.5, 500.0)
weights = st.sampled_from([0.5, 1.0, 2.0, 5.0])


@st.composite
def tenant_queues(draw: st.DrawFn, *, capped: bool = False) -> list[TenantQueue]:
    """Up to 5 tenants with up to 12 waiting generations each, of any history."""
    keys = iter(range(1000))
    queues = []
    for number in range(draw(st.integers(1, 5))):
        waiting: dict[Priority, list[Waiting]] = {}
        for _ in range(draw(st.integers(1, 12))):
            cost = draw(seconds)
            waiting.setdefault(draw(st.sampled_from(Priority)), []).append(Waiting(next(keys), cost, cost))
        tags = (draw(st.floats(0, 500)), draw(st.floats(0, 500)), draw(st.floats(0, 500)))
        share = Share(draw(st.floats(0, 300)), draw(st.floats(0, 500)), tags)
        limit = draw(st.none() | st.integers(1, 3)) if capped else None
        queues.append(TenantQueue(f"t{number}", share, waiting, draw(weights), max_running=limit))
    return queues


@dataclass
class Tenant:
    weight: float = 1.0
    max_running: int | None = None
    running: int = 0
    share: Share = field(default_factory=Share)
    waiting: dict[Priority, deque[Waiting]] = field(default_factory=dict)


@dataclass
class Pool:
    """Workers and queues, in simulated time; what the store does by rows."""

    workers: int
    tenants: dict[str, Tenant]
    virtual_time: float = 0.0
    now: float = 0.0
    free: int = 0
    ends: list[tuple[float, str]] = field(default_factory=list)
    served: list[tuple[float, str, Priority, int]] = field(default_factory=list)
    used: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.free = self.workers

    def submit(self, name: str, priority: Priority, generation: Waiting) -> None:
        tenant = self.tenants[name]
        if not tenant.waiting:
            tenant.share = activated(tenant.share, self.virtual_time)
        tenant.waiting.setdefault(priority, deque()).append(generation)
        self._dispatch()

    def advance(self, until: float) -> None:
        while self.ends and self.ends[0][0] <= until:
            self.now, name = heappop(self.ends)
            self.tenants[name].running -= 1
            self.free += 1
            self._dispatch()
        self.now = until

    def idle_although(self) -> bool:
        """True when a worker has nothing to do while something that may run waits."""
        return self.free > 0 and bool(self._eligible())

    def _eligible(self) -> dict[str, Share]:
        return {
            name: tenant.share
            for name, tenant in self.tenants.items()
            if tenant.waiting and (tenant.max_running is None or tenant.running < tenant.max_running)
        }

    def _dispatch(self) -> None:
        while self.free and (shares := self._eligible()):
            name, priority, generation = next(candidates(shares, lambda name: self.tenants[name].waiting))
            tenant = self.tenants[name]
            tenant.waiting[priority].popleft()
            if not tenant.waiting[priority]:
                del tenant.waiting[priority]
            terms = (self.virtual_time, priority, generation.charge, tenant.weight)
            tenant.share, self.virtual_time = dispatched(tenant.share, *terms)
            tenant.share = settled(tenant.share, generation.seconds - generation.charge, tenant.weight)
            tenant.running += 1
            self.free -= 1
            self.served.append((self.now, name, priority, generation.key))
            self.used[name] = self.used.get(name, 0.0) + generation.seconds
            heappush(self.ends, (self.now + generation.seconds, name))
