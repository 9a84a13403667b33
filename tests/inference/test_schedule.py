from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wan22.variants import VARIANTS
from wan22_inference.engine.schedule import Schedule, make_schedule

CPU = torch.device("cpu")


def official(name: str, **changed: float) -> Schedule:
    variant = VARIANTS[name]
    shift = changed.get("flow_shift", variant.flow_shift)
    return make_schedule(variant.num_inference_steps, shift, variant.boundary, CPU)


@pytest.mark.parametrize(
    ("name", "changed", "high", "low"),
    [
        ("t2v-a14b", {}, 26, 14),
        ("i2v-a14b", {}, 15, 25),
        ("i2v-a14b", {"flow_shift": 3.0}, 10, 30),
        ("t2v-a14b", {"flow_shift": 5.0}, 17, 23),
    ],
)
def test_each_expert_runs_its_steps(name: str, changed: dict[str, float], high: int, low: int) -> None:
    schedule = official(name, **changed)
    assert (schedule.high_steps, len(schedule.timesteps) - schedule.high_steps) == (high, low)
    assert [schedule.expert(step) for step in range(40)] == [0] * high + [1] * low


def test_the_sigmas_are_the_official_ones() -> None:
    schedule = official("t2v-a14b")
    plain = np.linspace(0.999, 0, 41)[:-1]
    shifted = 12 * plain / (1 + 11 * plain)
    np.testing.assert_allclose(schedule.solver.sigmas[:-1].numpy(), shifted, rtol=1e-6)
    assert schedule.solver.sigmas[-1] == 0.0
    assert int(schedule.timesteps[0]) == 999
    assert int(schedule.timesteps[-1]) == 235  # diffusers' own sigmas end at 242


def test_one_expert_runs_every_step_without_a_boundary() -> None:
    schedule = official("ti2v-5b")
    assert schedule.high_steps == len(schedule.timesteps) == 50


@given(st.integers(1, 100), st.floats(0.5, 20.0), st.floats(0.01, 0.99))
def test_every_allowed_schedule_ends_finite(num_steps: int, flow_shift: float, boundary: float) -> None:
    schedule = make_schedule(num_steps, flow_shift, boundary, CPU)
    latents = torch.ones(1, 1, 1, 2, 2)
    for step in range(num_steps):
        latents = schedule.advance(torch.full_like(latents, 0.5), step, latents)
    assert torch.isfinite(latents).all()
    # A constant velocity takes the latents along a straight line, by as much as sigma falls.
    expected = 1.0 - 0.5 * float(schedule.solver.sigmas[0])
    torch.testing.assert_close(latents, torch.full_like(latents, expected), rtol=1e-3, atol=1e-3)
