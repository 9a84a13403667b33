"""The timesteps of one forward, without a repetition for each token."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Timesteps:
    """Distinct timesteps, each for so many latent frames on end; usually one for all frames.

    ti2v-5b with an image has two: 0 for the first latent frame, which is the image's, and the step's for the rest. What
    the DiT makes of a timestep it makes of each distinct one only.
    """

    values: Tensor
    """(R,), any dtype, in [0, 1000]."""
    latent_frames: tuple[int, ...]
    """R counts; their sum is the number of latent frames."""

    def tokens(self, tokens_a_frame: int) -> tuple[int, ...]:
        """The R counts in tokens, which are in order of frame, row, column."""
        return tuple(frames * tokens_a_frame for frames in self.latent_frames)


def sinusoid(timesteps: Tensor, size: int) -> Tensor:
    """Cosines, then sines, of timesteps (R,) at size / 2 geometric frequencies from 1 down: (R, size) float32.

    In float32, as diffusers has it. The official model's float64 turns the fastest angles by up to 1e-4, which moves a
    velocity by less than 1e-5 of its norm.
    """
    half = size // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = torch.outer(timesteps.float(), torch.exp(-math.log(10_000.0) * exponents))
    return torch.cat([angles.cos(), angles.sin()], dim=1)
