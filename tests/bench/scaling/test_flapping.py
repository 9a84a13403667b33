"""Whatever comes, and whatever is predicted: no worker is started again without news."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wan22_bench.scaling.families import OURS
from wan22_bench.scaling.policies.ours import Ours
from wan22_bench.scaling.simulator import Setup, Simulation
from wan22_bench.scaling.trace import Trace
from wan22_operator.scaling.tuning import LONG_LOAD, SHORT_LOAD, Tuning

TUNINGS = st.sampled_from([SHORT_LOAD, LONG_LOAD]) | st.sampled_from(OURS.grid[1:]).map(lambda found: Tuning(**found))
SETUPS = st.builds(
    Setup,
    load_seconds=st.sampled_from([15.0, 90.0, 240.0]),
    max_workers=st.sampled_from([3, 32]),
    prediction_spread=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """Two hours in which some come at random, and perhaps crowds."""
    rng = np.random.default_rng(draw(st.integers(0, 1_000_000)))
    crowds = draw(st.lists(st.tuples(st.floats(0.0, 7000.0), st.integers(2, 20), st.floats(0.0, 300.0)), max_size=2))
    steady = rng.random(rng.poisson(draw(st.sampled_from([50, 100, 200])))) * 7200
    times = np.sort(np.concatenate([steady, *(begin + rng.random(count) * width for begin, count, width in crowds)]))
    return Trace(times, np.clip(np.exp(rng.normal(np.log(90.0), 0.9, len(times))), 5.0, 900.0))


@settings(max_examples=60)
@given(traces(), SETUPS, TUNINGS)
def test_no_worker_is_started_within_a_load_time_of_a_removal_unless_something_has_come(
    trace: Trace, setup: Setup, tuning: Tuning
) -> None:
    outcome = Simulation(trace, setup, Ours(tuning)).run()
    assert outcome.flaps == 0
    assert len(outcome.waits) == len(trace)
