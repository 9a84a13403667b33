"""Queries, keys and values in 8-bit floating point, each head with a scale of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wan22_inference.engine.rows8 import FP8, LARGEST

SAMPLED = 17
"""Of so many tokens on end one is looked at for a mean: any constant serves, the mean's neighbour as well as the mean;
prime, so that no width of a video makes it see a few columns alone."""
HEADROOM = 4.0
"""Over the largest deviation among the tokens looked at; what lies beyond is cut off."""


@dataclass(frozen=True)
class Heads8:
    """Heads whose values are data * scale."""

    data: Tensor
    """(B, L, H, D) float8_e4m3fn."""
    scale: Tensor
    """(B, H) float32, above 0."""

    def float(self) -> Tensor:
        """The values in float32."""
        return self.data.float() * self.scale[:, None, :, None]


def quantise_heads(x: Tensor, scale: Tensor) -> Heads8:
    """X (B, L, H, D) with given scales (B, H); magnitudes beyond 448 times the scale are cut off."""
    data = (x.float() / scale[:, None, :, None]).clamp(-LARGEST, LARGEST).to(FP8)
    return Heads8(data, scale)


def normed_scale(weight: Tensor, num_heads: int, batch: int, *, centred: bool) -> Tensor:
    """Scales (B, H) under which no value of a rotated RMSNorm with this weight (dim,) is cut off.

    A norm over `dim` channels bounds each by the root of `dim` times its gain, and a rotation by that times the root of
    two; less a mean, it is twice as much at most. The bound is far above what values are, which costs an
    e4m3 number nothing: with a gain of 3 and 5,120 channels it loses precision below 0.011 only.
    """
    bound = (2.0 * len(weight)) ** 0.5 * (2.0 if centred else 1.0) / LARGEST
    largest = torch.unflatten(weight.float().abs(), 0, (num_heads, -1)).amax(1)
    scale: Tensor = (largest * bound).clamp_min(torch.finfo(torch.float32).tiny)
    return scale.expand(batch, -1).contiguous()


def centre(x: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """A mean (B, dim) over the tokens of x (B, L, dim), float32, and scales (B, H) for what is left without it."""
    sample = x[:, ::SAMPLED].float()
    mean = sample.mean(1)
    largest = torch.unflatten((sample - mean.unsqueeze(1)).abs().amax(1), 1, (num_heads, -1)).amax(2)
    scale = largest * (HEADROOM / LARGEST)
    return mean, torch.where(scale == 0, 1.0, scale)
