"""A hundred thousand generations through one pool."""

from __future__ import annotations

from random import Random

import pytest

from wan22_gateway.scheduling.plan import Waiting
from wan22_gateway.scheduling.shares import Priority

from .queues import Pool, Tenant

GENERATIONS = 100_000
WORKERS = 50
WEIGHTS = {"a": 1.0, "b": 1.0, "c": 2.0, "d": 4.0}


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Four tenants that together ask for more than there is, by Poisson arrivals in bursts, sizes log-normal."""
    random = Random(22)
    pool = Pool(WORKERS, {name: Tenant(weight) for name, weight in WEIGHTS.items()})
    names = list(WEIGHTS)
    for key in range(GENERATIONS):
        pool.advance(pool.now + random.expovariate(WORKERS / 30.0 * 1.3))
        cost = min(600.0, random.lognormvariate(3.0, 0.9))
        priority = random.choices(list(Priority), [3, 5, 2])[0]
        pool.submit(names[key % 4], priority, Waiting(key, cost, cost))
    return pool


def test_shares_hold_within_five_percent_while_all_four_wait(pool: Pool) -> None:
    # From the time when even the heaviest tenant has a backlog it gets less than it asks for, and shares are by weight.
    backlogged = [name for name, tenant in pool.tenants.items() if tenant.waiting]
    assert {"a", "b"} <= set(backlogged)
    assert pool.used["a"] / pool.used["b"] == pytest.approx(1.0, rel=0.05)
    assert pool.used["d"] > pool.used["c"] >= pool.used["a"]


def test_nobody_idles_and_nothing_is_lost(pool: Pool) -> None:
    waiting = sum(len(part) for tenant in pool.tenants.values() for part in tenant.waiting.values())
    assert len(pool.served) + waiting == GENERATIONS
    assert pool.free == 0
    worked = sum(pool.used.values())
    assert worked >= 0.97 * WORKERS * pool.now


def test_every_priority_of_every_tenant_got_on(pool: Pool) -> None:
    last = pool.now - 600.0
    recent = {(name, priority) for time, name, priority, _ in pool.served if time > last}
    assert recent == {(name, priority) for name in WEIGHTS for priority in Priority}
