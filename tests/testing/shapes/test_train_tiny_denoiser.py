"""How clips come of noise in the trainings of the DiTs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tools.train_tiny.denoiser import Examples, Family, follow, guided
from tools.train_tiny.run import Run
from torch import Tensor, nn

from wan22_testing.trained_parts import FOLDER

SIGMAS = (1.0, 0.8, 0.5)
"""A step of each expert of t2v: the boundary is at 0.875."""


class Constant(nn.Module):
    """An expert whose velocity is one number with a prompt of ones, and zero without one."""

    def __init__(self, prompted: float) -> None:
        super().__init__()
        self.prompted = prompted
        self.asked = 0

    def forward(
        self, hidden_states: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, *, return_dict: bool
    ) -> tuple[Tensor]:
        self.asked += 1
        assert (len(timestep), return_dict) == (len(hidden_states), False)
        return (torch.full_like(hidden_states, self.prompted * float(encoder_hidden_states.mean())),)


@pytest.fixture
def family() -> Family:
    made = Family(Run("test", FOLDER, torch.device("cpu"), 0.0, None, None), "t2v-a14b-tiny")
    made.variant = replace(made.variant, guidance_scale_high=4.0, guidance_scale_low=3.0)
    made.unprompted = torch.zeros_like(made.unprompted)
    return made


def test_each_expert_is_guided_by_its_own_scale(family: Family) -> None:
    noise = torch.randn(2, 16, 5, 8, 8)
    examples = Examples(noise, torch.ones_like(family.unprompted), torch.zeros(2, 1, 5, 1, 1))
    came = follow([Constant(10.0), Constant(100.0)], family, noise, examples, SIGMAS)
    torch.testing.assert_close(came, noise - 0.2 * 10.0 * 4.0 - 0.3 * 100.0 * 3.0)


@pytest.mark.parametrize(("scale", "asked"), [(1.0, 1), (2.5, 2)])
def test_an_expert_without_guidance_is_not_asked_what_it_makes_of_no_prompt(
    family: Family, scale: float, asked: int
) -> None:
    noise = torch.randn(2, 16, 5, 8, 8)
    examples = Examples(noise, torch.ones_like(family.unprompted), torch.zeros(2, 1, 5, 1, 1))
    expert = Constant(10.0)
    came = guided(expert, family, noise, 0.9, examples, scale)
    torch.testing.assert_close(came, torch.full_like(noise, 10.0 * scale))
    assert expert.asked == asked
