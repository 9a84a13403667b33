"""The timesteps of a generation, its solver, and which expert runs which step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import UniPCMultistepScheduler
from torch import Tensor

NUM_TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True)
class Schedule:
    """UniPC of order 2 over the official sigmas; made anew for each generation, since it holds the solver's history."""

    solver: UniPCMultistepScheduler
    timesteps: Tensor
    """(num_steps,) int64, falling."""
    high_steps: int
    """Steps at the start that the high-noise expert runs; the low-noise expert runs the rest."""

    def expert(self, step: int) -> int:
        """Index of the expert of a step: 0 is high-noise (or the only one), 1 low-noise."""
        return 0 if step < self.high_steps else 1

    def advance(self, velocity: Tensor, step: int, latents: Tensor) -> Tensor:
        """The latents after a step, from the velocity predicted at its start."""
        return self.solver.step(velocity, self.timesteps[step], latents, return_dict=False)[0]  # type: ignore[no-any-return]  # untyped


def make_schedule(num_steps: int, flow_shift: float, boundary: float | None, device: torch.device) -> Schedule:
    """The official schedule: sigmas from 0.999 down to 0 in equal parts, then shifted.

    A step belongs to the high-noise expert when its timestep, cut to an integer, is at least boundary x 1000; without a
    boundary all do. Source: wan/utils/fm_solvers_unipc.py and wan/text2video.py of the official repository. diffusers'
    own flow sigmas start at 1 and end at 0.001, and give other videos.
    """
    solver = UniPCMultistepScheduler(
        num_train_timesteps=NUM_TRAIN_TIMESTEPS,
        solver_order=2,
        solver_type="bh2",
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=flow_shift,
        final_sigmas_type="zero",
    )
    solver.set_timesteps(sigmas=np.linspace(0.999, 0, num_steps + 1)[:-1], device=device)
    solver.set_begin_index(0)  # else a timestep that occurs twice (large shifts) would start the solver at its second
    high = num_steps if boundary is None else int((solver.timesteps >= boundary * NUM_TRAIN_TIMESTEPS).sum())
    return Schedule(solver, solver.timesteps, high)
