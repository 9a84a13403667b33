"""The timesteps of a generation, its solver, and which expert runs which step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
    UniPCMultistepScheduler,
)
from torch import Generator, Tensor

from wan22.errors import DataLoss, Reason
from wan22.solvers import Solver

NUM_TRAIN_TIMESTEPS = 1000
_LISTS, _TENSORS, _COUNTS = ("model_outputs", "timestep_list"), ("last_sample",), ("lower_order_nums", "this_order")
"""What diffusers' schedulers keep from one step to the next, each where it has such a thing."""


@dataclass(frozen=True)
class Schedule:
    """Sigmas and a solver over them; made anew for each generation, since it holds the solver's history."""

    scheduler: Any
    """One of diffusers' schedulers, at its first step."""
    timesteps: Tensor
    """(num_steps,), falling; int64 where the official schedule cuts them, else float32."""
    high_steps: int
    """Steps at the start that the high-noise expert runs; the low-noise expert runs the rest."""
    generator: Generator
    """Draws LCM's noise, on the CPU; the other solvers draw none."""

    def expert(self, step: int) -> int:
        """Index of the expert of a step: 0 is high-noise (or the only one), 1 low-noise."""
        return 0 if step < self.high_steps else 1

    def advance(self, velocity: Tensor, step: int, latents: Tensor) -> Tensor:
        """The latents after a step, from the velocity predicted at its start."""
        noise = {"generator": self.generator} if isinstance(self.scheduler, FlowMatchLCMScheduler) else {}
        moved: Tensor = self.scheduler.step(velocity, self.timesteps[step], latents, return_dict=False, **noise)[0]
        return moved

    def clean(self, velocity: Tensor, step: int, latents: Tensor) -> Tensor:
        """The latents without noise that the velocity at a step's start leads to, straight on."""
        sigma: Tensor = self.scheduler.sigmas[step]
        return latents - sigma * velocity

    def history(self) -> dict[str, Tensor]:
        """What the next step needs of the steps before it, and the state of the source of chance."""
        found = {"generator": self.generator.get_state()}
        for name in _LISTS:
            for index, value in enumerate(getattr(self.scheduler, name, ())):
                if value is not None:
                    found[f"{name}.{index}"] = torch.as_tensor(value)
        for name in (*_TENSORS, *_COUNTS):
            value = getattr(self.scheduler, name, None)
            if value is not None:
                found[name] = torch.as_tensor(value)
        return found

    def restore(self, step: int, history: Mapping[str, Tensor]) -> None:
        """Stands as one whose `history` this was after so many steps. Raises DataLoss (DAMAGED_CHECKPOINT)."""
        device = self.timesteps.device
        try:
            self.generator.set_state(history["generator"])
            for name, value in history.items():
                attribute, _, index = name.partition(".")
                if attribute in _LISTS:
                    getattr(self.scheduler, attribute)[int(index)] = value.to(device)
                elif attribute in _TENSORS:
                    setattr(self.scheduler, attribute, value.to(device))
                elif attribute in _COUNTS:
                    setattr(self.scheduler, attribute, int(value))
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            text = f"The checkpoint is not of this solver ({type(error).__name__}: {error})."
            raise DataLoss(text, reason=Reason.DAMAGED_CHECKPOINT) from error
        self.scheduler._step_index = step  # noqa: SLF001  # diffusers has no other way to start in the middle


def make_schedule(
    solver: Solver,
    num_steps: int,
    flow_shift: float,
    boundary: float | None,
    device: torch.device,
    generator: Generator,
    high_steps: int | None = None,
) -> Schedule:
    """The official schedule of a solver: equal steps of sigma, then shifted.

    A step belongs to the high-noise expert when its timestep is at least boundary x 1000, or is one of the first
    `high_steps`; with neither all do.
    """
    scheduler = _MAKERS[solver](num_steps, flow_shift, device)
    scheduler.set_begin_index(0)  # else a timestep that occurs twice (large shifts) would start at its second
    timesteps = scheduler.timesteps
    if high_steps is None:
        high_steps = num_steps if boundary is None else int((timesteps >= boundary * NUM_TRAIN_TIMESTEPS).sum())
    return Schedule(scheduler, timesteps, high_steps, generator)


def _unipc(num_steps: int, flow_shift: float, device: torch.device) -> Any:
    """Sigmas from 0.999 to 0, timesteps cut to integers. Source: wan/utils/fm_solvers_unipc.py, wan/text2video.py.

    diffusers' own flow sigmas start at 1 and end at 0.001, and give other videos.
    """
    scheduler = UniPCMultistepScheduler(
        num_train_timesteps=NUM_TRAIN_TIMESTEPS,
        solver_order=2,
        solver_type="bh2",
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=flow_shift,
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(sigmas=np.linspace(0.999, 0, num_steps + 1)[:-1], device=device)
    return scheduler


def _dpmpp(num_steps: int, flow_shift: float, device: torch.device) -> Any:
    """Sigmas from 1 to 0, timesteps cut to integers. Source: wan/utils/fm_solvers.py (get_sampling_sigmas)."""
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=NUM_TRAIN_TIMESTEPS,
        solver_order=2,
        algorithm_type="dpmsolver++",
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=flow_shift,
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(num_steps, device=device)
    plain = np.linspace(1, 0, num_steps + 1)
    sigmas = flow_shift * plain / (1 + (flow_shift - 1) * plain)
    scheduler.sigmas = torch.from_numpy(sigmas).float()  # diffusers takes none from outside for this solver
    scheduler.timesteps = torch.from_numpy(sigmas[:-1] * NUM_TRAIN_TIMESTEPS).to(device=device, dtype=torch.int64)
    return scheduler


def _euler(num_steps: int, flow_shift: float, device: torch.device) -> Any:
    """Sigmas from 1 to 0, timesteps as they come."""
    return _flow_match(FlowMatchEulerDiscreteScheduler, num_steps, flow_shift, device)


def _lcm(num_steps: int, flow_shift: float, device: torch.device) -> Any:
    """Sigmas from 1 to 0, timesteps as they come."""
    return _flow_match(FlowMatchLCMScheduler, num_steps, flow_shift, device)


def _flow_match(kind: Any, num_steps: int, flow_shift: float, device: torch.device) -> Any:
    scheduler = kind(num_train_timesteps=NUM_TRAIN_TIMESTEPS, shift=flow_shift)
    scheduler.set_timesteps(sigmas=np.linspace(1, 0, num_steps + 1)[:-1], device=device)
    return scheduler


_MAKERS = {Solver.UNIPC: _unipc, Solver.DPMPP: _dpmpp, Solver.EULER: _euler, Solver.LCM: _lcm}
