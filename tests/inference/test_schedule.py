from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wan22.profiles import TURBO_HIGH_STEPS, TURBO_SOLVER, TURBO_STEPS
from wan22.solvers import Solver
from wan22.variants import VARIANTS
from wan22_inference.engine.noise import make_generator
from wan22_inference.engine.schedule import Schedule, make_schedule

CPU = torch.device("cpu")


def official(name: str, solver: Solver = Solver.UNIPC, *, flow_shift: float | None = None) -> Schedule:
    variant = VARIANTS[name]
    shift = variant.flow_shift if flow_shift is None else flow_shift
    return make_schedule(solver, variant.num_inference_steps, shift, variant.boundary, CPU, make_generator(0))


@pytest.mark.parametrize(
    ("name", "flow_shift", "high", "low"),
    [("t2v-a14b", None, 26, 14), ("i2v-a14b", None, 15, 25), ("i2v-a14b", 3.0, 10, 30), ("t2v-a14b", 5.0, 17, 23)],
)
def test_each_expert_runs_its_steps(name: str, flow_shift: float | None, high: int, low: int) -> None:
    schedule = official(name, flow_shift=flow_shift)
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


@pytest.mark.parametrize("solver", [Solver.DPMPP, Solver.EULER, Solver.LCM])
def test_the_other_solvers_go_from_pure_noise_to_none(solver: Solver) -> None:
    schedule = official("t2v-a14b", solver)
    plain = np.linspace(1, 0, 41)
    np.testing.assert_allclose(schedule.solver.sigmas.numpy(), 12 * plain / (1 + 11 * plain), rtol=1e-6)
    assert float(schedule.timesteps[0]) == 1000.0
    assert schedule.high_steps == 26


def test_dpmpp_cuts_its_timesteps_as_the_official_one_does_and_euler_does_not() -> None:
    assert official("t2v-a14b", Solver.DPMPP).timesteps.dtype == torch.int64
    assert float(official("t2v-a14b", Solver.EULER).timesteps[1]) == pytest.approx(1000 * 12 * 0.975 / (1 + 11 * 0.975))


@given(st.sampled_from(Solver), st.integers(1, 100), st.floats(0.5, 20.0), st.floats(0.01, 0.99))
def test_every_allowed_schedule_ends_finite(solver: Solver, num_steps: int, flow_shift: float, boundary: float) -> None:
    schedule = make_schedule(solver, num_steps, flow_shift, boundary, CPU, make_generator(0))
    latents = torch.ones(1, 1, 1, 2, 2)
    for step in range(num_steps):
        latents = schedule.advance(torch.full_like(latents, 0.5), step, latents)
    assert torch.isfinite(latents).all()
    if solver is not Solver.LCM:
        # A constant velocity takes the latents along a straight line, by as much as sigma falls.
        expected = 1.0 - 0.5 * float(schedule.solver.sigmas[0])
        torch.testing.assert_close(latents, torch.full_like(latents, expected), rtol=1e-3, atol=1e-3)


@given(st.sampled_from(Solver), st.integers(2, 50), st.floats(0.5, 20.0))
def test_a_step_predicts_the_clean_latents_from_whatever_noise_is_in_them(
    solver: Solver, num_steps: int, flow_shift: float
) -> None:
    schedule = make_schedule(solver, num_steps, flow_shift, None, CPU, make_generator(0))
    clean, noise = torch.tensor([0.5, -2.0]), torch.tensor([1.0, 0.3])
    for step in range(num_steps):
        sigma = float(schedule.timesteps[step]) / 1000
        latents = (1 - sigma) * clean + sigma * noise
        # the model sees timesteps cut to integers, the solver's sigmas are as they come
        torch.testing.assert_close(schedule.clean(noise - clean, step, latents), clean, rtol=0, atol=3e-3)


def test_lcm_draws_its_noise_from_the_seed() -> None:
    def run(seed: int) -> torch.Tensor:
        schedule = make_schedule(Solver.LCM, 4, 5.0, None, CPU, make_generator(seed))
        latents = torch.zeros(1, 1, 1, 2, 2)
        for step in range(3):
            latents = schedule.advance(torch.ones_like(latents), step, latents)
        return latents

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@pytest.mark.parametrize(
    ("flow_shift", "timesteps"),
    [(5.0, [1000.0, 937.5, 833.3333, 625.0]), (16.0, [1000.0, 979.5918, 941.1765, 842.1053])],
)
def test_turbo_has_the_published_timesteps_and_two_steps_an_expert(flow_shift: float, timesteps: list[float]) -> None:
    schedule = make_schedule(
        TURBO_SOLVER, TURBO_STEPS, flow_shift, None, CPU, make_generator(0), high_steps=TURBO_HIGH_STEPS
    )
    assert schedule.timesteps.tolist() == pytest.approx(timesteps, rel=1e-6)
    assert [schedule.expert(step) for step in range(4)] == [0, 0, 1, 1]
    sigmas = [*(t / 1000 for t in timesteps), 0.0]
    latents = torch.zeros(1)
    for step in range(4):
        latents = schedule.advance(torch.ones(1), step, latents)
        assert float(latents) == pytest.approx(sigmas[step + 1] - 1.0, abs=1e-5)  # x += (sigma_next - sigma) v
