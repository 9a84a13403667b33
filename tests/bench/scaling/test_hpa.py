from __future__ import annotations

import numpy as np
import pytest

from wan22_bench.scaling.policies.hpa import Hpa, HpaSettings, metric_value, victim_rank
from wan22_bench.scaling.simulator import Change, Setup, SimulatedWorker, Simulation, State
from wan22_bench.scaling.trace import Trace


def hpa(replicas: int, **settings: float) -> Hpa:
    made = Hpa(HpaSettings(**{"target": 100.0, **settings}))  # type: ignore[arg-type]
    made.replicas = replicas
    return made


def follow(policy: Hpa, values: list[float], period: float = 15.0, most: int = 100) -> list[int]:
    """What it sets at each sync, from these values."""
    found = []
    for index, value in enumerate(values):
        policy.replicas = policy.recommend(index * period, value, most)
        found.append(policy.replicas)
    return found


@pytest.mark.parametrize(
    ("value", "expected"),
    [(800.0, 8), (801.0, 8), (850.0, 9), (200.0, 2), (0.0, 1)],
)
def test_the_replicas_are_the_total_over_the_average_value_rounded_up(value: float, expected: int) -> None:
    policy = hpa(4, down_window_seconds=0.0)  # 4 may double to 8 at most, or grow by 4
    assert policy.recommend(0.0, value, 100) == min(expected, 8)


def test_within_the_tolerance_nothing_changes() -> None:
    policy = hpa(10, down_window_seconds=0.0)
    assert policy.recommend(0.0, 1099.0, 100) == 10
    assert policy.recommend(15.0, 901.0, 100) == 10
    assert policy.recommend(30.0, 1101.0, 100) == 12
    assert hpa(10, tolerance=0.0).recommend(0.0, 1001.0, 100) == 11


def test_the_highest_recommendation_of_the_window_holds_on_the_way_down() -> None:
    # 300 s at 15 s: what was recommended at 0 still counts at 285 s and no more at 300 s.
    found = follow(hpa(6), [600.0] + [100.0] * 21)
    assert found[:20] == [6] * 20
    assert found[20:] == [1, 1]


def test_the_replicas_found_at_first_count_as_a_recommendation() -> None:
    assert follow(hpa(5), [100.0] * 3) == [5, 5, 5]


def test_growth_at_each_sync_is_by_four_or_by_double() -> None:
    assert follow(hpa(1), [10_000.0] * 5) == [5, 10, 20, 40, 80]


def test_the_rate_counts_what_was_added_within_its_period() -> None:
    # As in the documentation of behavior: at most 4 pods a minute.
    policy = hpa(1, up_percent=0.0, policy_period_seconds=60.0)
    assert follow(policy, [10_000.0] * 6) == [5, 5, 5, 5, 9, 9]


def test_ten_percent_a_minute_on_the_way_down() -> None:
    # The documentation's example: 80, then 72, then 8 fewer once more, since shares are rounded down to whole pods.
    policy = hpa(80, down_window_seconds=0.0, down_percent=10.0, policy_period_seconds=60.0)
    assert follow(policy, [1000.0] * 9)[::4] == [72, 64, 57]


def test_the_maximum_and_the_minimum_bound_it() -> None:
    assert hpa(4).recommend(0.0, 10_000.0, 6) == 6
    assert hpa(4, down_window_seconds=0.0, min_replicas=3).recommend(0.0, 0.0, 6) == 3


def worker(number: int, state: State, created: float, ready: float = 0.0) -> SimulatedWorker:
    return SimulatedWorker(number, created, 90.0, state=state, ready_time=ready)


def test_loading_pods_leave_first_then_the_younger_by_powers_of_two() -> None:
    loading = worker(1, State.LOADING, created=0.0)
    young, busy, old = worker(2, State.IDLE, 0.0, 990.0), worker(3, State.BUSY, 0.0, 900.0), worker(4, State.IDLE, 0, 0)
    ranked = sorted([old, busy, young, loading], key=lambda each: victim_rank(each, 1000.0))
    assert ranked == [loading, young, busy, old]
    # 550 s and 1000 s are both between 2^39 and 2^40 ns: as old as each other, so that chance decides, work or none.
    assert victim_rank(worker(5, State.IDLE, 0, 450.0), 1000.0)[:2] == victim_rank(old, 1000.0)[:2]


def test_what_runs_and_what_waits_is_outstanding() -> None:
    seen: list[tuple[float, float, float]] = []

    class Watching:
        period, eager = 100.0, False

        def may_sleep(self, _fleet: Simulation) -> bool:
            return False

        def decide(self, fleet: Simulation) -> Change:
            seen.append(tuple(metric_value(fleet, name) for name in ("queued", "outstanding", "seconds")))  # type: ignore[arg-type]
            return Change(start=int(not fleet.workers))

    trace = Trace(np.array([0.0, 10.0]), np.array([50.0, 200.0]))
    setup = Setup(load_seconds=90.0, load_spread=0.0, prediction_spread=0.0)
    Simulation(trace, setup, Watching()).run()
    # At 0: the first waits. At 100: it runs since 90, the other waits. At 200: that one runs since 140.
    assert seen[:3] == [(1, 1, 50.0), (1, 2, 40.0 + 200.0), (0, 1, 140.0)]


def test_who_is_busy_is_not_spared_and_is_cut_off_after_its_grace() -> None:
    trace = Trace(np.array([0.0, 0.0]), np.array([30.0, 700.0]))
    setup = Setup(load_seconds=15.0, load_spread=0.0, prediction_spread=0.0)
    settings = HpaSettings(down_window_seconds=0.0, grace_seconds=30.0)
    outcome = Simulation(trace, setup, Hpa(settings)).run()
    assert outcome.killed == 1
    assert outcome.stops == 1
