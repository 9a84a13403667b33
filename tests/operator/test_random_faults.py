"""Random faults at every call of the operator: no generation is lost, none runs twice, no rule is broken on the way."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any

import pytest

from wan22_operator.avoiding import FORGIVE_SECONDS, LONGEST_AVOID_SECONDS
from wan22_operator.cluster import OVERDUE_SECONDS, Object
from wan22_operator.pods import Pods
from wan22_operator.reflector import WATCH_SECONDS
from wan22_operator.resources import CONFIG_MAP, WAN_POOL, Resource
from wan22_testing.operator_world import faults
from wan22_testing.operator_world.faults import Fault
from wan22_testing.operator_world.memory_cluster import MemoryCluster
from wan22_testing.operator_world.world import World

SHARE = 0.08
"""Of calls that go wrong: more than half of the rounds meet a fault."""
CALM_SECONDS = 3600.0
PAUSES = (0.2, 1.0, 2.0, 5.0, 15.0, 40.0)
RATES = (0.0, 0.0, 0.0, 0.02, 0.1, 0.4)
"""Generations a second, a while each: from none to more than all workers can do."""


HAPPENS = {
    "nothing": 73,
    "demand changes": 15,
    "nodes return": 4,
    "the gateway is silent": 2,
    "watches are silent": 2,
    "the spec changes": 2,
    "a node dies": 1,
    "a worker crashes": 1,
}
"""Between two rounds, so often of a hundred."""


async def stormy(world: World, faults: int) -> None:
    """Clients ask, nodes and workers die, the spec changes, and calls go wrong, until so many have.

    Writes and reads that come late are not counted: they are more than all else.
    """
    counts = world.faults.counts
    while counts.total() - counts[Fault.LATE] - counts[Fault.OLD] < faults:
        world.pass_time(world.rng.choice(PAUSES))
        match world.rng.choices(list(HAPPENS), list(HAPPENS.values()))[0]:
            case "demand changes":
                world.rate = world.rng.choice(RATES)
            case "a node dies":
                world.kill_node()
            case "nodes return":
                world.restore_nodes()
            case "a worker crashes":
                world.crash_worker()
            case "the gateway is silent":
                world.gateway.silent_until = world.now + world.rng.uniform(10.0, 120.0)
            case "watches are silent":
                world.cluster.silent_until = world.now + world.rng.uniform(0.0, WATCH_SECONDS + OVERDUE_SECONDS)
            case "the spec changes":
                world.set_minimum(world.rng.randrange(3))
        await world.round()
        assert not world.wrong, (world.wrong, world.faults.counts)


async def calm(world: World) -> None:
    """Nothing goes wrong any more: everything comes to its end, and to rest."""
    world.faults.share = world.rate = 0.0
    world.restore_nodes()
    world.gateway.silent_until = world.cluster.silent_until = 0.0
    world.set_minimum(0)
    until = world.now + CALM_SECONDS
    while world.now < until and (any(not work.ends for work in world.work) or world.age_of_oldest()):
        world.pass_time(2.0)
        await world.round()
    world.pass_time(LONGEST_AVOID_SECONDS + FORGIVE_SECONDS)  # nodes that were avoided are forgotten, which is written
    for _ in range(40):
        world.pass_time(2.0)
        await world.round()


@pytest.mark.parametrize("faults", [200, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
async def test_no_fault_loses_a_generation_or_runs_one_twice(
    faults: int, moments: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(moments, SHARE)
    monkeypatch.setattr(time, "time", world.clock)
    await stormy(world, faults)
    assert set(world.faults.counts) == set(Fault)
    await calm(world)
    assert not world.wrong
    assert [work.ends for work in world.work] == [1] * len(world.work)
    assert [status["desiredReplicas"] for status in world.statuses()] == [0, 0]
    assert [status["workers"] for status in world.statuses()] == [[], []]
    rest = world.statuses()
    for _ in range(10):
        world.pass_time(15.0)
        await world.round()
    assert world.statuses() == rest, "nothing is written at rest"
    print(  # noqa: T201  # pytest shows it with -s
        f"{world.faults.counts.total()} faults in {world.rounds} rounds, {len(world.work)} generations, "
        f"{len(world.cluster.created)} workers"
    )


@pytest.mark.parametrize("resource", [CONFIG_MAP, WAN_POOL])
async def test_writes_over_what_another_wrote_meanwhile_are_found_out(
    resource: Resource, moments: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test of this test: an API server that looks at no resourceVersion of the budget, or of the pools' status."""
    refuses = MemoryCluster.precondition

    def forgets(has: Object, meta: Mapping[str, Any]) -> None:
        if has["kind"] != resource.kind:
            refuses(has, meta)

    monkeypatch.setattr(MemoryCluster, "precondition", staticmethod(forgets))
    world = World(moments, SHARE)
    monkeypatch.setattr(time, "time", world.clock)
    with pytest.raises(AssertionError):
        await stormy(world, 5_000)
    assert world.wrong


async def test_a_memory_of_pods_that_is_late_and_never_looked_behind_is_found_out(
    moments: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another test of this test: recorded workers that have no pod in memory are not looked up."""
    of = Pods.of
    monkeypatch.setattr(faults, "OLD_SHARE", 0.9)
    monkeypatch.setattr(Pods, "of", lambda pods, key, owner, _records: of(pods, key, owner, ()))
    world = World(moments, SHARE)
    monkeypatch.setattr(time, "time", world.clock)
    with pytest.raises(AssertionError):
        await stormy(world, 5_000)
    assert world.wrong
