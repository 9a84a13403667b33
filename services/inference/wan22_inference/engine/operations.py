"""What a block does between its matrix products and its attention: the plain forms, one function each.

Modulation comes as R rows for R runs of tokens on end (`lengths`, whose sum is L), so that nothing is made for each
token. Norms and modulation compute in float32 and round once, to x's dtype.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own convention
from torch import Tensor

from wan22_inference.engine.rope import Rotary, rotate


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm of x (B, L, dim) with float32 weight and bias (dim,); x's dtype."""
    return F.layer_norm(x.float(), weight.shape, weight, bias, eps).to(x.dtype)


def modulated_norm(x: Tensor, scale: Tensor, shift: Tensor, lengths: tuple[int, ...], eps: float) -> Tensor:
    """LayerNorm(x) * (1 + scale) + shift for x (B, L, dim), scale and shift (R, dim) float32; x's dtype."""
    normed = torch.empty_like(x)
    for run, out, weight, bias in zip(*_runs(lengths, x, normed), 1 + scale, shift, strict=True):
        out.copy_(F.layer_norm(run.float(), weight.shape, weight, bias, eps))
    return normed


def add_gated(x: Tensor, y: Tensor, gate: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """The sum x + y * gate, written over x (B, L, dim); y is like x, gate (R, dim) float32."""
    for run, addend, factor in zip(*_runs(lengths, x, y), gate, strict=True):
        run.addcmul_(addend, factor)
    return x


def norm_heads(x: Tensor, weight: Tensor, num_heads: int, eps: float) -> Tensor:
    """RMSNorm over all channels of x (B, L, dim) with weight (dim,), then cut into heads: (B, L, H, D)."""
    return torch.unflatten(F.rms_norm(x, weight.shape, weight, eps), 2, (num_heads, -1))


def norm_rotate_heads(x: Tensor, weight: Tensor, num_heads: int, eps: float, by: Rotary) -> Tensor:
    """As norm_heads, then the rotary embedding; rounded once, after both."""
    return rotate(norm_heads(x.float(), weight.float(), num_heads, eps), by).to(x.dtype)


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form."""
    return F.gelu(x, approximate="tanh")


def _runs(lengths: tuple[int, ...], *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    return [torch.split(tensor, list(lengths), dim=1) for tensor in tensors]
