from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan22_bench.quality.answers import Answers, Shown
from wan22_testing.shapes.world import Group

RED = frozenset({Group(1, "red", "circle", "right")})
BLUE = frozenset({Group(1, "blue", "square", "up")})
TWO = frozenset({Group(2, "red", "circle", "right")})
NOTHING: Shown = frozenset()


def test_a_share_counts_what_is_right_in_all_attributes() -> None:
    answers = Answers([RED, BLUE, TWO, RED | BLUE], [RED, NOTHING, RED, RED | BLUE])
    assert answers.share == 0.5
    assert answers.share_with(1) == 0.5
    assert answers.share_with(2) == 0.5
    assert answers.share_with(3) is None


def test_answers_are_compared_with_what_was_read_elsewhere() -> None:
    ours, theirs = Answers([RED, BLUE], [RED, NOTHING]), Answers([RED, BLUE], [TWO, NOTHING])
    assert ours.same_as(theirs) == 0.5
    assert ours.same_as(ours) == 1


def test_chance_leaves_out_each_videos_own_prompt() -> None:
    assert Answers([RED, BLUE, TWO], [RED, BLUE, TWO]).chance == 0
    assert Answers([RED, BLUE], [BLUE, RED]).chance == 1
    assert Answers([RED], [RED]).chance is None


@given(st.lists(st.tuples(*[st.sampled_from([RED, BLUE, TWO, NOTHING])] * 2), min_size=2, max_size=12))
def test_chance_is_the_mean_share_of_all_shifts_of_the_prompts(pairs: list[tuple[Shown, Shown]]) -> None:
    wanted, read = zip(*pairs, strict=True)
    shifts = [Answers([*wanted[by:], *wanted[:by]], read).share for by in range(1, len(wanted))]
    assert Answers(wanted, read).chance == pytest.approx(sum(shifts) / len(shifts))
