"""The fused forms of engine/operations.py, for CUDA devices that know float8: Triton kernels and cuBLAS's epilogues."""

from __future__ import annotations

import torch
from torch import Tensor

from wan22_inference.engine import plain_operations
from wan22_inference.engine.heads8 import Heads8
from wan22_inference.engine.kernels import add_norm as sums
from wan22_inference.engine.kernels import attend_text as texts
from wan22_inference.engine.kernels import convolve as convolutions
from wan22_inference.engine.kernels import norm_silu as pixels
from wan22_inference.engine.kernels import quantise_rows as rows
from wan22_inference.engine.kernels.centre_heads import centre_heads
from wan22_inference.engine.kernels.norm_rotate import norm_rotate, norm_rotate8
from wan22_inference.engine.rope import Rotary
from wan22_inference.engine.rows8 import Operand, Rows8
from wan22_inference.engine.text_keys import MOST, TextKeys


def norm(x: Tensor, scale: Tensor, shift: Tensor, lengths: tuple[int, ...], eps: float, *, fp8: bool) -> Operand:
    """See Operations."""
    return sums.add_norm(x, None, None, scale, shift, lengths, eps, fp8=fp8)


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
    return sums.add_norm(x, y, gate, scale, shift, lengths, eps, fp8=fp8)


def norm_heads(x: Tensor, weight: Tensor, num_heads: int, eps: float) -> Tensor:
    """See Operations."""
    return norm_rotate(x, weight, num_heads, eps, None)


def attend_text(x: Tensor, weight: Tensor, eps: float, text: TextKeys) -> Tensor:
    """See Operations; where padding was not joined there are many keys, and attention's own kernels are for these."""
    _, num_keys, num_heads, head = text.key.shape
    if num_keys <= MOST and texts.fits(head):
        return texts.attend_text(x, weight, eps, text)
    return text.attend(norm_heads(x, weight, num_heads, eps)).flatten(2)


def norm_rotate_heads(x: Tensor, weight: Tensor, num_heads: int, eps: float, by: Rotary) -> Tensor:
    """See Operations."""
    return norm_rotate(x, weight, num_heads, eps, by)


def norm_rotate_heads8(x: Tensor, weight: Tensor, eps: float, by: Rotary, mean: Tensor | None, scale: Tensor) -> Heads8:
    """See Operations."""
    return norm_rotate8(x, weight, eps, by, mean, scale)


def centred_heads8(x: Tensor, mean: Tensor, scale: Tensor) -> Heads8:
    """See Operations."""
    return centre_heads(x, mean, scale)


def norm_silu(x: Tensor, gamma: Tensor, eps: float, out: Tensor) -> None:
    """See Operations."""
    pixels.norm_silu(x, gamma, eps, out)


def convolve(frames: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See Operations; cuDNN's but for the one that it has no good kernel for."""
    if convolutions.fits(frames, weight):
        return convolutions.convolve(frames, weight, bias)
    return plain_operations.convolve(frames, weight, bias)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See Operations; cuBLAS applies the GELU to its float32 sums."""
    product = torch._addmm_activation(bias, x.flatten(0, -2), weight.t(), use_gelu=True)  # noqa: SLF001  # has no other name
    return product.view(*x.shape[:-1], -1)


def gelu_rows(x: Tensor) -> Rows8:
    """See Operations."""
    return rows.quantise_rows(x, None, gelu=True)


def quantise(x: Tensor, addend: Tensor | None = None) -> Rows8:
    """See Operations."""
    return rows.quantise_rows(x, addend, gelu=False)


def matmul_rows(x: Rows8, weight: Rows8, bias: Tensor) -> Tensor:
    """See Operations; partial sums are kept in the tensor cores' own precision (fast accumulation)."""
    product = torch._scaled_mm(  # noqa: SLF001  # has no other name
        x.data.flatten(0, -2),
        weight.data.t(),
        x.scale.reshape(-1, 1),
        weight.scale.reshape(1, -1),
        bias=bias,
        out_dtype=bias.dtype,
        use_fast_accum=True,
    )
    return product.view(*x.data.shape[:-1], -1)
