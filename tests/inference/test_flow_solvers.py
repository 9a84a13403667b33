"""Our schedules and solvers against diffusers', bit for bit."""

from __future__ import annotations

import pytest
import torch

from wan22.errors import DataLoss, Reason
from wan22.solvers import Solver
from wan22_inference.engine.noise import make_generator
from wan22_inference.engine.schedule import Schedule, make_schedule
from wan22_testing.reference_schedulers import make_scheduler

CPU = torch.device("cpu")
SHAPE = (1, 4, 3, 6, 5)
SHIFTS = [0.5, 1.0, 5.0, 12.0, 20.0]


def ours(solver: Solver, num_steps: int, flow_shift: float) -> Schedule:
    return make_schedule(solver, num_steps, flow_shift, None, CPU, make_generator(3))


def draw(number: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(number))


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 5, 14, 15, 40, 100])
@pytest.mark.parametrize("solver", Solver)
def test_every_step_has_the_bits_of_diffusers(solver: Solver, num_steps: int) -> None:
    for flow_shift in SHIFTS:
        schedule, scheduler = ours(solver, num_steps, flow_shift), make_scheduler(solver, num_steps, flow_shift, CPU)
        assert torch.equal(schedule.solver.sigmas, scheduler.sigmas)
        assert torch.equal(schedule.timesteps, scheduler.timesteps)
        assert schedule.timesteps.dtype is scheduler.timesteps.dtype
        noise = {"generator": make_generator(3)} if solver is Solver.LCM else {}
        found = expected = draw(0)
        for step in range(num_steps):
            velocity = draw(step + 1) + 0.1 * expected
            found = schedule.advance(velocity, step, found)
            expected = scheduler.step(velocity, scheduler.timesteps[step], expected, return_dict=False, **noise)[0]
            assert torch.equal(found, expected), (flow_shift, step)


@pytest.mark.parametrize("solver", Solver)
def test_what_is_kept_after_a_step_is_all_that_the_others_need(solver: Solver) -> None:
    whole, latents = ours(solver, 6, 5.0), draw(0)
    starts, histories = [], []
    for step in range(6):
        starts.append(latents)
        histories.append(whole.history())
        latents = whole.advance(draw(step + 1), step, latents)
    for first in range(1, 6):
        resumed, again = ours(solver, 6, 5.0), starts[first]
        resumed.restore(first, histories[first])
        for step in range(first, 6):
            again = resumed.advance(draw(step + 1), step, again)
        assert torch.equal(again, latents)


@pytest.mark.parametrize(
    ("solver", "of", "step"),
    [
        (Solver.EULER, Solver.DPMPP, 2),
        (Solver.DPMPP, Solver.EULER, 2),
        (Solver.DPMPP, Solver.UNIPC, 2),
        (Solver.UNIPC, Solver.DPMPP, 2),
        (Solver.UNIPC, Solver.UNIPC, 1),
    ],
)
def test_a_history_of_another_solver_or_step_is_refused(solver: Solver, of: Solver, step: int) -> None:
    other, latents = ours(of, 4, 5.0), draw(0)
    for done in range(2):
        latents = other.advance(draw(done + 1), done, latents)
    with pytest.raises(DataLoss, match="not of this solver") as caught:
        ours(solver, 4, 5.0).restore(step, other.history())
    assert caught.value.reason is Reason.DAMAGED_CHECKPOINT


def test_a_state_of_chance_that_is_none_is_refused() -> None:
    with pytest.raises(DataLoss, match="not of this solver"):
        ours(Solver.LCM, 4, 5.0).restore(1, {"generator": torch.zeros(3)})
