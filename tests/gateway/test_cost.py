from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan22.parameters import RequestedParameters, resolve
from wan22.variants import VARIANTS
from wan22_gateway.cost import CostModel, Work, work

parts = st.floats(0.001, 1e4)
works = st.builds(Work, parts, parts, parts, st.just(1.0))


def work_of(variant: str, **wanted: float) -> Work:
    requested = RequestedParameters(prompt="x", **wanted)  # type: ignore[arg-type]  # a test's own fields
    return work(VARIANTS[variant], resolve(VARIANTS[variant], requested, image_size=None, draw_seed=lambda: 0))


def true_seconds(of: Work) -> float:
    """A card that is fast at products, slow at attention."""
    return 0.2 * of.linear + 0.9 * of.attention + 0.5 * of.decode + 3.0 * of.fixed


def some_work(random: Random) -> Work:
    frames = random.choice([17, 49, 81, 121])
    size = random.choice([(832, 480), (1280, 720), (480, 832), (640, 480)])
    return work_of(
        "t2v-a14b", num_frames=frames, width=size[0], height=size[1], num_inference_steps=random.choice([4, 20, 40])
    )


@given(st.lists(st.tuples(works, st.floats(0.01, 1e5)), max_size=40), works)
def test_predictions_are_positive_and_finite_whatever_was_seen(seen: list[tuple[Work, float]], next_work: Work) -> None:
    model = CostModel()
    for of, seconds in seen:
        model = model.learned(of, seconds)
        assert model == CostModel.from_json(model.to_json())
    assert 0 < model.seconds(next_work) < 1e12
    assert 0 <= model.at_least(next_work) <= model.seconds(next_work)


@pytest.mark.parametrize("seed", range(5))
def test_predictions_converge_on_work_of_other_shapes(seed: int) -> None:
    random, model = Random(seed), CostModel()
    for _ in range(60):
        of = some_work(random)
        model = model.learned(of, true_seconds(of) * random.gauss(1.0, 0.03))
    off = [abs(model.seconds(of) / true_seconds(of) - 1) for of in (some_work(random) for _ in range(50))]
    assert max(off) < 0.15
    assert sum(off) / len(off) < 0.05
    assert model.spread < 0.1


def test_one_outlier_changes_little_and_a_changed_card_is_followed() -> None:
    of = work_of("t2v-a14b")
    model = CostModel()
    for _ in range(20):
        model = model.learned(of, 100.0)
    assert model.seconds(of) == pytest.approx(100.0)
    assert model.learned(of, 2000.0).seconds(of) == pytest.approx(100.0, rel=0.3)
    for _ in range(10):
        model = model.learned(of, 30.0)
    assert model.seconds(of) == pytest.approx(30.0, rel=0.1)


def test_a_slow_first_generation_is_forgotten() -> None:
    of = work_of("t2v-a14b")
    model = CostModel().learned(of, 1000.0)
    for _ in range(10):
        model = model.learned(of, 100.0)
    assert model.seconds(of) == pytest.approx(100.0, rel=0.15)


def test_work_grows_with_tokens_steps_and_guidance() -> None:
    base = work_of("t2v-a14b", num_frames=41)
    longer = work_of("t2v-a14b", num_frames=81)
    assert longer.attention / base.attention > longer.linear / base.linear > 1.8
    assert work_of("t2v-a14b", num_frames=41, num_inference_steps=80).linear == pytest.approx(2 * base.linear)
    plain = work_of("t2v-a14b", num_frames=41, guidance_scale_high=1.0, guidance_scale_low=1.0)
    assert plain.linear == pytest.approx(base.linear / 2)
    assert CostModel().at_least(base) == 0.0
