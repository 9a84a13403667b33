"""Diffusers' schedulers with the official repository's sigmas, which they would not choose themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
    UniPCMultistepScheduler,
)

from wan22.solvers import Solver


def make_scheduler(solver: Solver, num_steps: int, flow_shift: float, device: torch.device) -> Any:
    """The one of a solver, at its first step."""
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": flow_shift}
    if solver is Solver.UNIPC:
        scheduler = UniPCMultistepScheduler(**flow)
        scheduler.set_timesteps(sigmas=np.linspace(0.999, 0, num_steps + 1)[:-1], device=device)
    elif solver is Solver.DPMPP:
        scheduler = DPMSolverMultistepScheduler(**flow)
        scheduler.set_timesteps(num_steps, device=device)
        plain = np.linspace(1, 0, num_steps + 1)
        sigmas = flow_shift * plain / (1 + (flow_shift - 1) * plain)
        scheduler.sigmas = torch.from_numpy(sigmas).float()  # it takes none from outside
        scheduler.timesteps = torch.from_numpy(sigmas[:-1] * 1000).to(device=device, dtype=torch.int64)
    else:
        kind = FlowMatchEulerDiscreteScheduler if solver is Solver.EULER else FlowMatchLCMScheduler
        scheduler = kind(shift=flow_shift)
        scheduler.set_timesteps(sigmas=np.linspace(1, 0, num_steps + 1)[:-1], device=device)
    scheduler.set_begin_index(0)  # else a timestep that occurs twice (large shifts) would start at its second
    return scheduler
