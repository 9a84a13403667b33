from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan22_bench.scaling.families import FAMILIES, Family
from wan22_bench.scaling.policies.hpa import Hpa, HpaSettings
from wan22_bench.scaling.simulator import Setup
from wan22_bench.scaling.trace import Trace
from wan22_bench.scaling.tuning import Part, Point, at_share, cheapest, frontier, some_of, tune


def point(share: float, gpu_hours: float, starts: int = 0) -> Point:
    return Point(settings={}, share=share, gpu_hours=gpu_hours, starts=starts)


CURVE = [point(0.90, 10.0, 100), point(0.98, 14.0, 300), point(0.97, 15.0, 1), point(1.0, 20.0, 500)]


def test_the_frontier_leaves_out_who_is_beaten_in_both() -> None:
    assert [each.gpu_hours for each in frontier(CURVE)] == [10.0, 14.0, 20.0]


def test_the_cheapest_that_has_the_share_is_chosen_else_the_one_with_the_greatest() -> None:
    assert cheapest(CURVE, 0.97).gpu_hours == 14.0
    assert cheapest(CURVE[:3], 0.99).share == 0.98


def test_a_curve_is_interpolated_between_its_neighbours() -> None:
    between = at_share(CURVE, 0.94)
    assert between.gpu_hours == pytest.approx(12.0)
    assert between.starts == pytest.approx(200.0)
    assert between.reached
    assert at_share(CURVE, 0.98).gpu_hours == pytest.approx(14.0)


def test_below_its_cheapest_a_curve_costs_what_that_does_and_above_its_end_it_is_not_reached() -> None:
    assert at_share(CURVE, 0.5).gpu_hours == 10.0
    beyond = at_share(CURVE[:3], 0.99)
    assert (beyond.gpu_hours, beyond.reached) == (14.0, False)


@given(
    st.lists(st.builds(point, st.floats(0.0, 1.0), st.floats(1.0, 100.0)), min_size=1, max_size=20), st.floats(0.0, 1.0)
)
def test_no_curve_costs_less_for_a_greater_share(candidates: list[Point], share: float) -> None:
    shares = [each.share for each in frontier(candidates)]
    assert shares == sorted(set(shares))
    lower, upper = at_share(candidates, share / 2), at_share(candidates, share)
    assert lower.gpu_hours <= upper.gpu_hours + 1e-9


def test_a_few_of_a_grid_begin_with_the_defaults() -> None:
    grid = [{"target": float(index)} for index in range(50)]
    some = some_of(grid, 5, seed=3)
    assert (some[0], len(some)) == (grid[0], 5)
    assert len({each["target"] for each in some}) == 5
    assert some_of(grid, 100, seed=3) == grid


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_setting_of_every_grid_makes_a_policy_and_none_is_there_twice(family: Family) -> None:
    for settings in family.grid:
        assert family.make(settings).period > 0
    assert len({str(sorted(settings.items())) for settings in family.grid}) == len(family.grid)


def test_the_choice_is_made_on_the_training_part_and_only_played_on_the_held_one() -> None:
    # In training one generation at a time is enough for one worker; on the held part four come at once.
    setup = Setup(load_seconds=15.0, objective_seconds=60.0, load_spread=0.0, prediction_spread=0.0)
    training = Part(Trace(np.array([0.0, 1000.0]), np.array([50.0, 50.0])), 0)
    held = Part(Trace(np.array([100.0] * 4), np.array([50.0] * 4)), 0)
    family = Family("HPA", lambda settings: Hpa(HpaSettings(**settings)), [{"target": 1.0}, {"target": 9.0}])
    said: list[str] = []
    tuned = tune(family, family.grid, training, held, setup, 1.0, said.append)
    assert tuned.chosen.settings == {"target": 1.0}
    assert tuned.chosen.share == 1.0
    assert (tuned.held_point.share, tuned.held.loads) == (1.0, 4)
    assert [each.settings for each in tuned.curve] == [{"target": 1.0}]
    assert said[0].startswith("HPA, load 15 s: 2 settings; chosen {'target': 1.0}")
