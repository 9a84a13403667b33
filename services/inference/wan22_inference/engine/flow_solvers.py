"""The solvers: how latents follow the predicted velocity from one sigma to the next.

Diffusers' schedulers are the same, operation by operation, so that both have the same bits, and take seconds to import.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor


class FlowSolver(ABC):
    """Moves latents, step by step; it holds what a step needs of those before it.

    Latents at sigma are (1 - sigma) of the clean ones and sigma of noise; the velocity is noise less clean latents.
    """

    def __init__(self, sigmas: Tensor) -> None:
        self.sigmas = sigmas
        """(num_steps + 1,) float32, falling to 0."""
        self.kept: dict[str, Tensor] = {}
        """What the next step needs of those before it."""

    def keeps(self, step: int) -> set[str]:  # noqa: ARG002  # those that keep nothing do not look
        """The names in `kept` after so many steps."""
        return set()

    @abstractmethod
    def advance(self, velocity: Tensor, step: int, latents: Tensor) -> Tensor:
        """The latents after a step, from the velocity predicted at its start; float32 all."""

    def clean(self, velocity: Tensor, step: int, latents: Tensor) -> Tensor:
        """The latents without noise that the velocity at a step's start leads to, straight on."""
        sigma: Tensor = self.sigmas[step]
        return latents - sigma * velocity


class Euler(FlowSolver):
    """Along the velocity. Source: FlowMatchEulerDiscreteScheduler of diffusers."""

    def advance(self, velocity: Tensor, step: int, latents: Tensor) -> Tensor:
        """Straight on."""
        return latents + (self.sigmas[step + 1] - self.sigmas[step]) * velocity


class Lcm(FlowSolver):
    """To the clean latents, and back with new noise. Source: FlowMatchLCMScheduler of diffusers."""

    def __init__(self, sigmas: Tensor, generator: Generator) -> None:
        """`generator`, on the CPU, draws the noise."""
        super().__init__(sigmas)
        self._generator = generator

    def advance(self, velocity: Tensor, step: int, latents: Tensor) -> Tensor:
        """To the clean latents, and from there back to the next sigma."""
        clean, sigma = self.clean(velocity, step, latents), self.sigmas[step + 1]
        noise = torch.randn(clean.shape, generator=self._generator, dtype=clean.dtype).to(clean.device)
        return (1 - sigma) * clean + sigma * noise


class DpmSolver(FlowSolver):
    """DPM-Solver++ of order 2, by midpoints; the first and the last step are of order 1.

    Sources: https://arxiv.org/abs/2211.01095; DPMSolverMultistepScheduler of diffusers; wan/utils/fm_solvers.py.
    """

    def keeps(self, step: int) -> set[str]:
        """The last clean latents, once there are any."""
        return {"clean"} if step else set()

    def advance(self, velocity: Tensor, step: int, latents: Tensor) -> Tensor:
        """By the clean latents of this step and of the one before."""
        clean, before = self.clean(velocity, step, latents), self.kept.get("clean")
        self.kept = {"clean": clean}
        start, end = self.sigmas[step], self.sigmas[step + 1]
        stride = _log_snr(end) - _log_snr(start)
        pull = (1 - end) * (torch.exp(-stride) - 1.0)
        moved = (end / start) * latents - pull * clean
        if before is None or step + 2 == len(self.sigmas):
            return moved
        ratio = (_log_snr(start) - _log_snr(self.sigmas[step - 1])) / stride
        return moved - 0.5 * pull * ((1.0 / ratio) * (clean - before))


class UniPc(FlowSolver):
    """UniPC of order 2 with B(h) = exp(h) - 1, called bh2; the first and the last step are of order 1.

    A step first corrects the one before it, by the velocity that was found where that led. Scalars are computed on the
    latents' device: a GPU may round logarithms otherwise than a CPU.

    Sources: https://arxiv.org/abs/2302.04867; UniPCMultistepScheduler of diffusers; wan/utils/fm_solvers_unipc.py.
    """

    def keeps(self, step: int) -> set[str]:
        """Where the last step started, and the clean latents that it and the one before it led to."""
        return {"start", "clean", "clean_before"} if step > 1 else {"start", "clean"} if step else set()

    def advance(self, velocity: Tensor, step: int, latents: Tensor) -> Tensor:
        """Corrects the last step, then takes this one from there."""
        clean = self.clean(velocity, step, latents)
        if step:
            latents = self._corrected(clean, step - 1)
            self.kept = {"start": latents, "clean": clean, "clean_before": self.kept["clean"]}
        else:
            self.kept = {"start": latents, "clean": clean}
        stride, pull, moved = self._first_order(step)
        if self._order(step) == 1:
            return moved
        return moved - pull * (0.5 * self._slope(step, stride)[1])

    def _corrected(self, found: Tensor, step: int) -> Tensor:
        """Where a step leads, by the clean latents that the velocity there leads to."""
        stride, pull, moved = self._first_order(step)
        change = found - self.kept["clean"]
        if self._order(step) == 1:
            return moved - pull * (0.5 * change)
        ratio, slope = self._slope(step, stride)
        ratios = torch.stack([ratio, torch.ones((), device=ratio.device)])
        growth = torch.expm1(-stride)
        first = growth / -stride - 1
        second = first / -stride - 1 / 2
        weights: Tensor = torch.linalg.solve(
            torch.stack([torch.pow(ratios, 0), ratios]), torch.stack([first / growth, second * 2 / growth])
        )
        corrected: Tensor = moved - pull * (weights[0] * slope + weights[1] * change)
        return corrected

    def _order(self, step: int) -> int:
        return min(2, step + 1, len(self.sigmas) - 1 - step)

    def _first_order(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """A step's length in log SNR, how strongly clean latents pull, and where it leads by the last of them alone."""
        start, clean = self.kept["start"], self.kept["clean"]
        before, after = self._sigma(step), self._sigma(step + 1)
        stride = _log_snr(after) - _log_snr(before)
        pull = (1 - after) * torch.expm1(-stride)
        return stride, pull, after / before * start - pull * clean

    def _slope(self, step: int, stride: Tensor) -> tuple[Tensor, Tensor]:
        """Minus the length of the step before over this one's, and the change of clean latents over such a length."""
        ratio = (_log_snr(self._sigma(step - 1)) - _log_snr(self._sigma(step))) / stride
        return ratio, (self.kept["clean_before"] - self.kept["clean"]) / ratio

    def _sigma(self, index: int) -> Tensor:
        return self.sigmas[index].to(self.kept["clean"].device)


def _log_snr(sigma: Tensor) -> Tensor:
    """Half the logarithm of the signal-to-noise ratio."""
    return torch.log(1 - sigma) - torch.log(sigma)
