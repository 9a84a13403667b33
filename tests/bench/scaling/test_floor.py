"""The floor that no policy can go below: exact where it is known by hand, and below every policy elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from wan22_bench.scaling.families import FAMILIES, FORESIGHT
from wan22_bench.scaling.floor import least_gpu_seconds
from wan22_bench.scaling.simulator import Change, Setup, Simulation, State
from wan22_bench.scaling.synthetic import synthetic_trace
from wan22_bench.scaling.trace import Trace
from wan22_bench.scaling.tuning import Part, simulate

EXACT = Setup(load_seconds=90.0, load_spread=0.0, objective_seconds=120.0)


def floor_of(jobs: list[tuple[float, float]], share: float = 1.0) -> float:
    arrivals, seconds = np.array(jobs).T
    return least_gpu_seconds(Trace(arrivals, seconds), EXACT, share)


def test_nothing_to_do_takes_nothing() -> None:
    assert least_gpu_seconds(Trace(np.zeros(0), np.zeros(0)), EXACT, 1.0) == 0.0


@pytest.mark.parametrize(
    ("jobs", "least"),
    [
        ([(1000.0, 400.0)], 400.0 + 90.0),
        ([(1000.0, 400.0), (5000.0, 400.0)], 2 * (400.0 + 90.0)),  # too far apart to wait
        ([(1000.0, 400.0), (1300.0, 400.0)], 800.0 + 90.0),  # one after the other, both in time
        ([(1000.0, 400.0), (1550.0, 400.0)], 800.0 + 90.0 + 30.0),  # the first as late as it may: 30 s to wait
        ([(1000.0, 600.0), (1000.0, 600.0)], 1200.0 + 180.0),  # at once, whoever comes first
    ],
)
def test_the_floor_of_long_generations_is_what_they_take_at_best(jobs: list[tuple[float, float]], least: float) -> None:
    assert floor_of(jobs) <= least + 1e-6
    assert floor_of(jobs) == pytest.approx(least, abs=6.0)


def test_the_floor_of_a_short_generation_is_no_higher_than_what_it_takes() -> None:
    assert 50.0 < floor_of([(1000.0, 50.0)]) <= 50.0 + 90.0


def test_those_that_may_be_late_need_no_load() -> None:
    far = [(4000.0 * number, 400.0) for number in range(4)]
    assert floor_of(far, share=0.75) == pytest.approx(4 * 400.0 + 3 * 90.0 - 90.0, abs=20.0)
    assert floor_of(far, share=0.0) == 4 * 400.0


class Choosy:
    """Knows how long the next worker would load, and gives those up that load for long until one loads quickly."""

    period, eager = 2.0, True

    def __init__(self, longest: float) -> None:
        self._longest = longest

    def may_sleep(self, _fleet: Simulation) -> bool:
        return True

    def decide(self, fleet: Simulation) -> Change:
        slow = [one for one in fleet.staying if one.load_seconds > self._longest]
        idle = [one for one in fleet.staying if one.state is State.IDLE and one not in slow]
        needs = len(fleet.queue) - sum(one.state is State.LOADING for one in fleet.staying if one not in slow)
        return Change(start=max(0, needs), stop=[*slow, *idle])


def test_who_chooses_among_loads_does_not_go_below_the_floor_either() -> None:
    setup = Setup(load_seconds=90.0, load_spread=0.3)
    trace = Trace(np.arange(0.0, 600_000.0, 2000.0), np.full(300, 400.0))
    outcome = Simulation(trace, setup, Choosy(70.0)).run()
    share = outcome.share_within(setup.objective_seconds)
    assert share > 0.99
    floor = least_gpu_seconds(trace, setup, share)
    assert trace.seconds.sum() + 300 * 55.0 < floor < outcome.gpu_seconds < trace.seconds.sum() + 300 * 85.0


def test_no_policy_goes_below_the_floor() -> None:
    day = synthetic_trace("diurnal", 1)
    morning = day.arrivals < 6 * 3600
    trace, setup = Trace(day.arrivals[morning], day.seconds[morning]), Setup(load_seconds=90.0)
    for family in (*FAMILIES, FORESIGHT):
        outcome = simulate(family, family.grid[0], Part(trace, 0), setup)
        floor = least_gpu_seconds(trace, setup, outcome.share_within(setup.objective_seconds))
        assert trace.seconds.sum() < floor < outcome.gpu_seconds
