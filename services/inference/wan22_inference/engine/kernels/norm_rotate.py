"""RMSNorm of queries or keys and their rotation, in one pass: in place, or to float8."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from wan22_inference.engine.heads8 import Heads8
from wan22_inference.engine.kernels.launch import row_shape
from wan22_inference.engine.rope import Rotary
from wan22_inference.engine.rows8 import FP8


@triton.jit
def _rotated(x, cos_ptr, sin_ptr, first, inside, PAIRS_A_HEAD: tl.constexpr, SIZE: tl.constexpr):  # noqa: ANN202  # a tensor of Triton's
    """Turns the pairs of x, SIZE channels of a token from the pair `first` on; `inside` says which pairs there are."""
    angle = (first + tl.arange(0, SIZE // 2)) % PAIRS_A_HEAD
    cos = tl.load(cos_ptr + angle, inside, 0.0)
    sin = tl.load(sin_ptr + angle, inside, 0.0)
    even, odd = tl.split(tl.reshape(x, (SIZE // 2, 2)))
    return tl.reshape(tl.join(even * cos - odd * sin, even * sin + odd * cos), (SIZE,))


@triton.jit(do_not_specialize=["length"])
def _norm_rotate(
    x_ptr,
    weight_ptr,
    cos_ptr,
    sin_ptr,
    mean_ptr,
    scale_ptr,
    out_ptr,
    length,
    eps,
    PAIRS_A_HEAD: tl.constexpr,
    ROTATED: tl.constexpr,
    HAS_MEAN: tl.constexpr,
    QUANTISED: tl.constexpr,
    DIM: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    a = tl.arange(0, MAIN)
    b = MAIN + tl.arange(0, REST)
    inside = b < DIM
    x_a = tl.load(x_ptr + row * DIM + a).to(tl.float32)
    x_b = tl.load(x_ptr + row * DIM + b, inside, 0.0).to(tl.float32)
    factor = tl.rsqrt((tl.sum(x_a * x_a, 0) + tl.sum(x_b * x_b, 0)) / DIM + eps)
    x_a = x_a * factor * tl.load(weight_ptr + a).to(tl.float32)
    x_b = x_b * factor * tl.load(weight_ptr + b, inside, 0.0).to(tl.float32)
    if ROTATED:
        cos = cos_ptr + row % length * PAIRS_A_HEAD
        sin = sin_ptr + row % length * PAIRS_A_HEAD
        x_a = _rotated(x_a, cos, sin, 0, tl.arange(0, MAIN // 2) >= 0, PAIRS_A_HEAD, MAIN)
        x_b = _rotated(x_b, cos, sin, MAIN // 2, MAIN // 2 + tl.arange(0, REST // 2) < DIM // 2, PAIRS_A_HEAD, REST)
    if HAS_MEAN:
        mean = mean_ptr + row // length * DIM
        x_a -= tl.load(mean + a)
        x_b -= tl.load(mean + b, inside, 0.0)
    if QUANTISED:
        scale = scale_ptr + row // length * (DIM // (2 * PAIRS_A_HEAD))
        x_a = x_a / tl.load(scale + a // (2 * PAIRS_A_HEAD))
        x_b = x_b / tl.load(scale + b // (2 * PAIRS_A_HEAD), inside, 1.0)
    tl.store(out_ptr + row * DIM + a, x_a.to(out_ptr.dtype.element_ty))
    tl.store(out_ptr + row * DIM + b, x_b.to(out_ptr.dtype.element_ty), inside)


def norm_rotate(x: Tensor, weight: Tensor, num_heads: int, eps: float, by: Rotary | None) -> Tensor:
    """See Operations.norm_rotate_heads, and norm_heads without `by`; x (B, L, dim), contiguous, is overwritten."""
    _launch(x, weight, num_heads, eps, by, None, None, x)
    return x.view(*x.shape[:2], num_heads, -1)


def norm_rotate8(x: Tensor, weight: Tensor, eps: float, by: Rotary, mean: Tensor | None, scale: Tensor) -> Heads8:
    """See Operations.norm_rotate_heads8; x (B, L, dim), mean and scale are contiguous, and none is overwritten.

    The scales are such that nothing is beyond 448 of them, but for what rounding adds, which e4m3 rounds down.
    """
    num_heads = scale.shape[1]
    out = torch.empty_like(x, dtype=FP8)
    _launch(x, weight, num_heads, eps, by, mean, scale, out)
    return Heads8(out.view(*x.shape[:2], num_heads, -1), scale)


def _launch(
    x: Tensor,
    weight: Tensor,
    num_heads: int,
    eps: float,
    by: Rotary | None,
    mean: Tensor | None,
    scale: Tensor | None,
    out: Tensor,
) -> None:
    batch, length, dim = x.shape
    shape = row_shape(dim)
    _norm_rotate[(batch * length,)](
        x.view(-1),  # refuses what is not contiguous
        weight,
        x if by is None else by.cos,
        x if by is None else by.sin,
        x if mean is None else mean.view(-1),
        x if scale is None else scale.view(-1),
        out,
        length,
        eps,
        PAIRS_A_HEAD=dim // num_heads // 2,
        ROTATED=by is not None,
        HAS_MEAN=mean is not None,
        QUANTISED=scale is not None,
        DIM=dim,
        MAIN=shape.main,
        REST=shape.rest,
        num_warps=shape.warps,
    )
