from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan22_gateway.scheduling.plan import Plan, TenantQueue, Waiting, candidates
from wan22_gateway.scheduling.shares import Priority, Share

from .queues import seconds, tenant_queues

workers = st.lists(st.floats(0, 100), min_size=1, max_size=4).map(lambda ends: [(end, "") for end in ends])


def fifo(count: int, cost: float = 10.0, first: int = 0) -> Mapping[Priority, Sequence[Waiting]]:
    return {Priority.NORMAL: [Waiting(first + key, cost, cost) for key in range(count)]}


@given(tenant_queues(capped=True), st.floats(0, 300), workers)
def test_a_plan_has_each_generation_once_and_starts_never_go_back(
    queues: list[TenantQueue], time: float, workers: list[tuple[float, str]]
) -> None:
    plan = Plan(queues, time, workers)
    keys = sorted(waiting.key for queue in queues for part in queue.waiting.values() for waiting in part)
    assert sorted(plan.order) == keys
    assert len(plan.starts) == len(keys)
    assert all(earlier <= later for earlier, later in pairwise(plan.starts))
    assert plan.free_at is not None
    assert plan.free_at >= plan.starts[-1]


@given(tenant_queues(), st.floats(0, 300))
def test_what_the_dispatcher_takes_is_the_first_of_the_plan(queues: list[TenantQueue], time: float) -> None:
    shares = {queue.name: queue.share for queue in queues}
    by_name = {queue.name: queue for queue in queues}
    _, _, first = next(candidates(shares, lambda name: by_name[name].waiting))
    assert Plan(queues, time, [(0.0, "")]).order[0] == first.key


@given(tenant_queues(), workers, st.data())
def test_a_place_foretold_is_the_place_had(
    queues: list[TenantQueue], workers: list[tuple[float, str]], data: st.DataObject
) -> None:
    priority = data.draw(st.sampled_from(Priority))
    cost = data.draw(seconds)
    chosen = data.draw(st.integers(0, len(queues) - 1))
    new = Waiting(-1, cost, cost)
    tenant = queues[chosen]
    foretold = Plan(queues, 0.0, workers).place(tenant.name, priority)
    longer = {**tenant.waiting, priority: [*tenant.waiting.get(priority, ()), new]}
    queues[chosen] = replace(tenant, waiting=longer)
    after = Plan(queues, 0.0, workers)
    index = after.order.index(-1)
    assert (foretold.position, foretold.start) == (index + 1, after.starts[index])


@given(tenant_queues(), workers, st.sampled_from(Priority))
def test_a_new_tenants_place_is_foretold_too(
    queues: list[TenantQueue], workers: list[tuple[float, str]], priority: Priority
) -> None:
    foretold = Plan(queues, 100.0, workers).place("new", priority)
    new = TenantQueue("new", Share(tag=100.0), {priority: [Waiting(-1, 5.0, 5.0)]})
    after = Plan([*queues, new], 100.0, workers)
    index = after.order.index(-1)
    assert (foretold.position, foretold.start) == (index + 1, after.starts[index])


def test_a_queue_of_one_tenant_is_first_come_first_served_on_the_workers_that_are_free_first() -> None:
    plan = Plan([TenantQueue("a", Share(), fifo(4))], 0.0, [(0.0, ""), (5.0, "")])
    assert plan.order == [0, 1, 2, 3]
    assert plan.starts == [0.0, 5.0, 10.0, 15.0]
    assert plan.free_at == 20.0
    assert plan.place("a", Priority.NORMAL).position == 5


def test_without_a_worker_there_is_an_order_but_no_time() -> None:
    plan = Plan([TenantQueue("a", Share(), fifo(2)), TenantQueue("b", Share(), fifo(1, first=7))], 0.0, [])
    assert plan.order == [0, 7, 1]
    assert plan.starts == []
    assert plan.place("c", Priority.LOW).start is None


def test_a_tenant_that_may_run_one_at_once_leaves_the_other_worker_to_others() -> None:
    queues = [TenantQueue("a", Share(), fifo(2), max_running=1), TenantQueue("b", Share(tag=99.0), fifo(2, first=7))]
    plan = Plan(queues, 0.0, [(0.0, ""), (0.0, "")])
    assert plan.order == [0, 7, 1, 8]
    assert plan.starts == [0.0, 0.0, 10.0, 10.0]


def test_what_waits_for_work_in_another_pool_has_a_position_but_no_time() -> None:
    full = TenantQueue("a", Share(), fifo(2), running=1, max_running=1)
    plan = Plan([full], 0.0, [(0.0, "")])
    assert (plan.order, plan.starts, plan.free_at) == ([0, 1], [], None)
    own = Plan([full], 0.0, [(0.0, ""), (30.0, "a")])
    assert own.starts == [30.0, 40.0]


@pytest.mark.parametrize("priority", list(Priority))
def test_an_empty_pool_serves_at_once(priority: Priority) -> None:
    place = Plan([], 5.0, [(3.0, "x"), (0.0, "")]).place("a", priority)
    assert (place.position, place.start) == (1, 0.0)
