"""Perfect foresight: a yardstick, which keeps workers only while that is cheaper than another load."""

from __future__ import annotations

import numpy as np
import pytest

from wan22_bench.scaling.families import FORESIGHT, OURS
from wan22_bench.scaling.simulator import Outcome, Setup
from wan22_bench.scaling.synthetic import synthetic_trace
from wan22_bench.scaling.trace import Trace
from wan22_bench.scaling.tuning import Part, simulate


def play(jobs: list[tuple[float, float]], load_seconds: float = 100.0) -> Outcome:
    arrivals, seconds = np.array(jobs).T
    setup = Setup(load_seconds=load_seconds, load_spread=0.0, objective_seconds=120.0)
    return simulate(FORESIGHT, {}, Part(Trace(arrivals, seconds), 0), setup)


def test_a_worker_is_started_before_the_arrival_where_a_load_is_longer_than_the_objective() -> None:
    assert play([(1000.0, 50.0)]).waits[0] == 100.0
    long = play([(1000.0, 50.0)], load_seconds=240.0)
    assert 110.0 <= long.waits[0] <= 120.0
    assert long.gpu_seconds == pytest.approx(240.0 + 50.0, abs=10.0)


def test_one_worker_does_what_it_can_do_in_time_and_leaves_before_a_long_silence() -> None:
    outcome = play([(0.0, 9.0), (20.0, 9.0), (40.0, 9.0), (2000.0, 9.0)])
    assert (outcome.loads, outcome.flaps) == (2, 0)
    assert outcome.share_within(120.0) == 1.0
    assert outcome.gpu_seconds < 4 * 9.0 + 2 * 100.0 + 20.0


def test_it_needs_no_more_than_the_operator_does_who_knows_nothing_of_the_future() -> None:
    part, setup = Part(synthetic_trace("diurnal", 1).between(0, 1), 1), Setup(load_seconds=90.0)
    known, unknown = simulate(FORESIGHT, {}, part, setup), simulate(OURS, {}, part, setup)
    assert known.share_within(120.0) >= unknown.share_within(120.0)
    assert known.gpu_hours < unknown.gpu_hours
