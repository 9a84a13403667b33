"""The timesteps of a generation, its solver, and which expert runs which step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from wan22.errors import DataLoss, Reason
from wan22.solvers import Solver
from wan22_inference.engine.flow_solvers import DpmSolver, Euler, FlowSolver, Lcm, UniPc

NUM_TRAIN_TIMESTEPS = 1000
_GENERATOR = "generator"


@dataclass(frozen=True)
class Schedule:
    """Sigmas and a solver over them; made anew for each generation, since it holds the solver's history."""

    solver: FlowSolver
    """At its first step."""
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
        return self.solver.advance(velocity, step, latents)

    def clean(self, velocity: Tensor, step: int, latents: Tensor) -> Tensor:
        """The latents without noise that the velocity at a step's start leads to, straight on."""
        return self.solver.clean(velocity, step, latents)

    def history(self) -> dict[str, Tensor]:
        """What the next step needs of the steps before it, and the state of the source of chance."""
        return {_GENERATOR: self.generator.get_state(), **self.solver.kept}

    def restore(self, step: int, history: Mapping[str, Tensor]) -> None:
        """Stands as one whose `history` this was after so many steps. Raises DataLoss (DAMAGED_CHECKPOINT)."""
        wanted = {_GENERATOR, *self.solver.keeps(step)}
        if history.keys() != wanted:
            text = f"it has {', '.join(sorted(history)) or 'nothing'}, where {', '.join(sorted(wanted))} are needed"
            raise _foreign(text)
        try:
            self.generator.set_state(history[_GENERATOR])
        except (RuntimeError, TypeError) as error:
            raise _foreign(f"{type(error).__name__}: {error}") from error
        device = self.timesteps.device
        self.solver.kept = {name: history[name].to(device) for name in self.solver.keeps(step)}


def _foreign(why: str) -> DataLoss:
    return DataLoss(f"The checkpoint is not of this solver ({why}).", reason=Reason.DAMAGED_CHECKPOINT)


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
    made, timesteps = _make(solver, num_steps, flow_shift, device, generator)
    if high_steps is None:
        high_steps = num_steps if boundary is None else int((timesteps >= boundary * NUM_TRAIN_TIMESTEPS).sum())
    return Schedule(made, timesteps, high_steps, generator)


def _make(
    solver: Solver, num_steps: int, flow_shift: float, device: torch.device, generator: Generator
) -> tuple[FlowSolver, Tensor]:
    """A solver at its first step, and the timesteps."""
    match solver:
        case Solver.UNIPC:
            sigmas = _shifted(np.linspace(0.999, 0, num_steps + 1), flow_shift)
            return UniPc(torch.from_numpy(sigmas).float()), _whole(sigmas, device)
        case Solver.DPMPP:
            sigmas = _shifted(np.linspace(1, 0, num_steps + 1), flow_shift)
            return DpmSolver(torch.from_numpy(sigmas).float()), _whole(sigmas, device)
        case Solver.EULER | Solver.LCM:
            rounded = _shifted(np.linspace(1, 0, num_steps + 1).astype(np.float32), flow_shift)
            there = torch.from_numpy(rounded).to(device)
            return Euler(there) if solver is Solver.EULER else Lcm(there, generator), there[:-1] * NUM_TRAIN_TIMESTEPS


def _shifted(sigmas: np.ndarray[Any, Any], flow_shift: float) -> np.ndarray[Any, Any]:
    """Sigmas with more of them near 1."""
    return flow_shift * sigmas / (1 + (flow_shift - 1) * sigmas)


def _whole(sigmas: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    """Timesteps cut to integers, of all sigmas but the last."""
    return torch.from_numpy(sigmas[:-1] * NUM_TRAIN_TIMESTEPS).to(device=device, dtype=torch.int64)
