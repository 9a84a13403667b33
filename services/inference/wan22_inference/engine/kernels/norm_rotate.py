"""RMSNorm of queries or keys and their rotation, in one pass and in place."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from wan22_inference.engine.kernels.launch import row_shape
from wan22_inference.engine.rope import Rotary


@triton.jit
def _rotated(x, cos_ptr, sin_ptr, first, inside, PAIRS_A_HEAD: tl.constexpr, SIZE: tl.constexpr):  # noqa: ANN202  # a tensor of Triton's
    """Turns the pairs of x, SIZE channels of a token from the pair `first` on; `inside` says which pairs there are."""
    angle = (first + tl.arange(0, SIZE // 2)) % PAIRS_A_HEAD
    cos = tl.load(cos_ptr + angle, inside, 0.0)
    sin = tl.load(sin_ptr + angle, inside, 0.0)
    even, odd = tl.split(tl.reshape(x, (SIZE // 2, 2)))
    return tl.reshape(tl.join(even * cos - odd * sin, even * sin + odd * cos), (SIZE,))


@triton.jit
def _norm_rotate(
    x_ptr,
    weight_ptr,
    cos_ptr,
    sin_ptr,
    length,
    eps,
    PAIRS_A_HEAD: tl.constexpr,
    ROTATED: tl.constexpr,
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
    tl.store(x_ptr + row * DIM + a, x_a.to(x_ptr.dtype.element_ty))
    tl.store(x_ptr + row * DIM + b, x_b.to(x_ptr.dtype.element_ty), inside)


def norm_rotate(x: Tensor, weight: Tensor, num_heads: int, eps: float, by: Rotary | None) -> Tensor:
    """See Operations.norm_rotate_heads, and norm_heads without `by`; x (B, L, dim), contiguous, is overwritten."""
    batch, length, dim = x.shape
    shape = row_shape(dim)
    _norm_rotate[(batch * length,)](
        x.view(-1),  # refuses what is not contiguous
        weight,
        x if by is None else by.cos,
        x if by is None else by.sin,
        length,
        eps,
        PAIRS_A_HEAD=dim // num_heads // 2,
        ROTATED=by is not None,
        DIM=dim,
        MAIN=shape.main,
        REST=shape.rest,
        num_warps=shape.warps,
    )
    return x.view(batch, length, num_heads, -1)
