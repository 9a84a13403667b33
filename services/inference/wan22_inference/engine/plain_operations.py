"""The plain forms of engine/operations.py, by torch alone, on any device: what the fused ones are compared with."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own convention
from torch import Tensor

from wan22_inference.engine.heads8 import Heads8, quantise_heads
from wan22_inference.engine.rope import Rotary, rotate
from wan22_inference.engine.rows8 import Operand, Rows8, quantise_rows
from wan22_inference.engine.text_keys import TextKeys


def norm(x: Tensor, scale: Tensor, shift: Tensor, lengths: tuple[int, ...], eps: float, *, fp8: bool) -> Operand:
    """See Operations."""
    normed = torch.empty_like(x, dtype=torch.float32 if fp8 else x.dtype)
    for run, out, weight, bias in zip(*_runs(lengths, x, normed), scale, shift, strict=True):
        out.copy_(F.layer_norm(run.float(), weight.shape, weight, bias, eps))
    return quantise(normed) if fp8 else normed


def add_norm(
    x: Tensor,
    y: Tensor,
    gate: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    lengths: tuple[int, ...],
    eps: float,
    *,
    fp8: bool,
) -> Operand:
    """See Operations."""
    if gate is None:
        x += y
    else:
        for run, addend, factor in zip(*_runs(lengths, x, y), gate, strict=True):
            run.addcmul_(addend, factor)
    return norm(x, scale, shift, lengths, eps, fp8=fp8)


def norm_heads(x: Tensor, weight: Tensor, num_heads: int, eps: float) -> Tensor:
    """See Operations."""
    return torch.unflatten(F.rms_norm(x, weight.shape, weight, eps), 2, (num_heads, -1))


def attend_text(x: Tensor, weight: Tensor, eps: float, text: TextKeys) -> Tensor:
    """See Operations."""
    return text.attend(norm_heads(x, weight, text.key.shape[2], eps)).flatten(2)


def norm_rotate_heads(x: Tensor, weight: Tensor, num_heads: int, eps: float, by: Rotary) -> Tensor:
    """See Operations."""
    return rotate(norm_heads(x.float(), weight.float(), num_heads, eps), by).to(x.dtype)


def norm_rotate_heads8(x: Tensor, weight: Tensor, eps: float, by: Rotary, mean: Tensor | None, scale: Tensor) -> Heads8:
    """See Operations."""
    num_heads = scale.shape[1]
    turned = rotate(norm_heads(x.float(), weight.float(), num_heads, eps), by)
    return quantise_heads(turned if mean is None else turned - _heads_of(mean, num_heads), scale)


def centred_heads8(x: Tensor, mean: Tensor, scale: Tensor) -> Heads8:
    """See Operations."""
    num_heads = scale.shape[1]
    return quantise_heads(torch.unflatten(x.float(), 2, (num_heads, -1)) - _heads_of(mean, num_heads), scale)


def norm_silu(x: Tensor, gamma: Tensor, eps: float, out: Tensor) -> None:
    """See Operations."""
    normed = F.rms_norm(x.movedim(1, -1), (x.shape[1],), gamma.flatten(), eps).movedim(-1, 1)
    torch.ops.aten.silu.out(normed, out=out)


def convolve(frames: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See Operations."""
    return F.conv3d(frames, weight, bias, padding=(0, weight.shape[3] // 2, weight.shape[4] // 2))


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See Operations."""
    return gelu(F.linear(x, weight, bias))


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form."""
    return F.gelu(x, approximate="tanh")


def gelu_rows(x: Tensor) -> Rows8:
    """See Operations."""
    return quantise(gelu(x.float()))


def quantise(x: Tensor, addend: Tensor | None = None) -> Rows8:
    """See Operations."""
    return quantise_rows(x if addend is None else x.float() + addend.unsqueeze(1))


def matmul_rows(x: Rows8, weight: Rows8, bias: Tensor) -> Tensor:
    """See Operations."""
    return F.linear(x.float(), weight.float(), bias.float()).to(bias.dtype)


def _heads_of(mean: Tensor, num_heads: int) -> Tensor:
    """(B, dim) as (B, 1, H, D)."""
    return torch.unflatten(mean.unsqueeze(1), 2, (num_heads, -1))


def _runs(lengths: tuple[int, ...], *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    return [torch.split(tensor, list(lengths), dim=1) for tensor in tensors]
