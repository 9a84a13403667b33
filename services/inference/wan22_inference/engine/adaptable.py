"""Where adapters add to a DiT: beside its matrix products, and to the vectors that are not part of one.

The weights stay as they were loaded. What is attached is no parameter, so that it neither travels nor is stored with
them, and what is detached leaves nothing behind.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own convention
from torch import Tensor, nn

from wan22_inference.engine.rows8 import Operand, Rows8

CHUNK_ROWS = 16384
"""Quantised rows that are widened at a time."""


@dataclass(frozen=True)
class Branch:
    """What adapters add to a matrix product, in the dtype of its result; strengths are in it."""

    down: Tensor | None
    """(R, in), the ranks of all adapters on end."""
    up: Tensor | None
    """(out, R), present where `down` is."""
    whole: Tensor | None
    """(out, in)."""
    bias: Tensor | None
    """(out,)."""

    def add_to(self, out: Tensor, x: Operand) -> Tensor:
        """Adds what comes of x (..., in) to the contiguous result (..., out), in place, and returns it."""
        rows = out.view(-1, out.shape[-1])
        if self.down is not None and self.up is not None:
            rows.addmm_(_product(x, self.down), self.up.t())
        if self.whole is not None:
            rows += _product(x, self.whole)
        if self.bias is not None:
            rows += self.bias
        return out


class Adaptable(nn.Module):
    """A module to whose vectors adapters may add."""

    def __init__(self) -> None:
        super().__init__()
        self.sums: dict[str, Tensor] = {}
        """What is added to a parameter, by its name in this module; float32."""

    def value(self, name: str) -> Tensor:
        """A parameter with what adapters add to it, rounded once."""
        parameter: Tensor = getattr(self, name)
        addend = self.sums.get(name)
        return parameter if addend is None else (parameter.float() + addend).to(parameter.dtype)


class NormWeights(Adaptable):
    """The weight, and perhaps the bias, of a norm that engine/operations.py computes."""

    def __init__(self, dim: int, dtype: torch.dtype, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(dim, dtype=dtype)) if bias else None


def _product(x: Operand, matrix: Tensor) -> Tensor:
    """(rows, n) of x (..., K) and matrix (n, K)."""
    if not isinstance(x, Rows8):
        return F.linear(x, matrix).flatten(0, -2)
    data, scale = x.data.flatten(0, -2), x.scale.reshape(-1, 1)
    parts = zip(torch.split(data, CHUNK_ROWS), torch.split(scale, CHUNK_ROWS), strict=True)
    return torch.cat([(F.linear(part.to(matrix.dtype), matrix) * factor).to(matrix.dtype) for part, factor in parts])
