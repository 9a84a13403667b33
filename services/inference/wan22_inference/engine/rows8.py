"""Matrices in 8-bit floating point, each row with a scale of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FP8 = torch.float8_e4m3fn
LARGEST = 448.0
"""The largest finite number of float8_e4m3fn."""


@dataclass(frozen=True)
class Rows8:
    """A matrix whose row i is data[i] * scale[i]."""

    data: Tensor
    """(..., K) float8_e4m3fn."""
    scale: Tensor
    """(...) float32, one a row, above 0."""

    def float(self) -> Tensor:
        """The matrix in float32."""
        return self.data.float() * self.scale.unsqueeze(-1)


Operand = Tensor | Rows8
"""What a linear layer takes: as it is, or quantised by whoever made it."""


def quantise_rows(x: Tensor) -> Rows8:
    """Each row of x (..., K) by its largest magnitude, which becomes 448; a row of zeros has the scale 1.

    Rounds to the nearest, ties to even. Weights and activations are quantised alike.
    """
    x = x.float()
    scale = x.abs().amax(-1) / LARGEST
    scale = torch.where(scale == 0, 1.0, scale)
    return Rows8((x / scale.unsqueeze(-1)).to(FP8), scale)


def split_tokens(x: Operand, tokens: int) -> list[Operand]:
    """X (B, L, K) in parts of at most so many tokens, contiguous each."""
    if isinstance(x, Tensor):
        return [part.contiguous() for part in torch.split(x, tokens, dim=1)]
    parts = zip(torch.split(x.data, tokens, dim=1), torch.split(x.scale, tokens, dim=1), strict=True)
    return [Rows8(data.contiguous(), scale.contiguous()) for data, scale in parts]
