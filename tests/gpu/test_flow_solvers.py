"""The solvers beside diffusers' on a GPU, which rounds logarithms and small systems of equations in its own way."""

from __future__ import annotations

import pytest
import torch

from wan22.solvers import Solver
from wan22_inference.engine.noise import make_generator
from wan22_inference.engine.schedule import make_schedule
from wan22_testing.reference_schedulers import make_scheduler


@pytest.mark.gpu
@pytest.mark.parametrize(("num_steps", "flow_shift"), [(4, 5.0), (40, 12.0), (50, 5.0)])
@pytest.mark.parametrize("solver", Solver)
def test_every_step_has_the_bits_of_diffusers(
    cuda: torch.device, solver: Solver, num_steps: int, flow_shift: float
) -> None:
    schedule = make_schedule(solver, num_steps, flow_shift, None, cuda, make_generator(3))
    scheduler = make_scheduler(solver, num_steps, flow_shift, cuda)
    assert torch.equal(schedule.timesteps, scheduler.timesteps)
    noise = {"generator": make_generator(3)} if solver is Solver.LCM else {}
    chance = torch.Generator(cuda).manual_seed(0)
    found = expected = torch.randn(1, 16, 21, 60, 104, generator=chance, device=cuda)
    for step in range(num_steps):
        velocity = torch.randn(expected.shape, generator=chance, device=cuda)
        found = schedule.advance(velocity, step, found)
        expected = scheduler.step(velocity, scheduler.timesteps[step], expected, return_dict=False, **noise)[0]
        assert torch.equal(found, expected), step
