"""The 3-D rotary position embedding of queries and keys."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from wan22_inference.engine.heads8 import SAMPLED

_THETA = 10_000.0


@dataclass(frozen=True)
class Rotary:
    """The angles' cosines and sines for each token and pair of channels: (L, D / 2) float32 each."""

    cos: Tensor
    sin: Tensor

    @functools.cached_property
    def sampled(self) -> Rotary:
        """The same of the tokens that heads8.SAMPLED looks at."""
        return Rotary(self.cos[::SAMPLED].contiguous(), self.sin[::SAMPLED].contiguous())


@functools.lru_cache(maxsize=2)  # a generation has one grid; the other is the next one's
def rotary(grid: tuple[int, int, int], head_dim: int, device: torch.device) -> Rotary:
    """The embedding of a grid of (latent frames, rows, columns) tokens, in that order.

    Of a head's pairs of channels the last third turns with the column, the third before it with the row, and the rest
    with the frame. Angles are made in float64 on the CPU, so that every device has the same. Source: rope_params and
    rope_apply of wan/modules/model.py of the official repository.
    """
    third = head_dim // 6
    pairs = (head_dim // 2 - 2 * third, third, third)
    axes = []
    for axis, (length, count) in enumerate(zip(grid, pairs, strict=True)):
        frequencies = _THETA ** -(torch.arange(count, dtype=torch.float64) / count)
        angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
        shape = [1, 1, 1, count]
        shape[axis] = length
        axes.append(angles.view(shape).expand(*grid, count))
    table = torch.cat(axes, dim=-1).reshape(-1, head_dim // 2)
    return Rotary(table.cos().float().to(device), table.sin().float().to(device))


def rotate(x: Tensor, by: Rotary) -> Tensor:
    """Turns each pair of neighbouring channels of x (B, L, H, D) by its token's angle, in float32; x's dtype."""
    even, odd = torch.unflatten(x.float(), -1, (-1, 2)).unbind(-1)
    cos, sin = by.cos.unsqueeze(1), by.sin.unsqueeze(1)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)
