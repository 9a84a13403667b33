"""RMSNorm of queries or keys and their rotation, in one pass and in place."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from wan22_inference.engine.kernels.launch import ROWS_A_PROGRAM, row_shape
from wan22_inference.engine.rope import Rotary


@triton.jit
def _norm_rotate(
    x_ptr,
    weight_ptr,
    cos_ptr,
    sin_ptr,
    num_rows,
    length,
    eps,
    PAIRS_A_HEAD: tl.constexpr,
    ROTATED: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    channel = tl.arange(0, BLOCK)
    inside = channel < DIM
    weight = tl.load(weight_ptr + channel, inside, 0.0).to(tl.float32)
    pair = tl.arange(0, BLOCK // 2)
    angle = pair % PAIRS_A_HEAD
    for i in range(ROWS):
        index = tl.program_id(0) * ROWS + i
        if index < num_rows:
            row = index.to(tl.int64)
            x = tl.load(x_ptr + row * DIM + channel, inside, 0.0)
            wide = x.to(tl.float32)
            normed = wide * tl.rsqrt(tl.sum(wide * wide, 0) / DIM + eps) * weight
            if ROTATED:
                token = row % length
                cos = tl.load(cos_ptr + token * PAIRS_A_HEAD + angle)
                sin = tl.load(sin_ptr + token * PAIRS_A_HEAD + angle)
                even, odd = tl.split(tl.reshape(normed, (BLOCK // 2, 2)))
                turned = tl.join(even * cos - odd * sin, even * sin + odd * cos)
                normed = tl.reshape(turned, (BLOCK,))
            tl.store(x_ptr + row * DIM + channel, normed.to(x.dtype), inside)


def norm_rotate(x: Tensor, weight: Tensor, num_heads: int, eps: float, by: Rotary | None) -> Tensor:
    """See Operations.norm_rotate_heads, and norm_heads without `by`; x (B, L, dim), contiguous, is overwritten."""
    batch, length, dim = x.shape
    block, warps = row_shape(dim)
    num_rows = batch * length
    _norm_rotate[(triton.cdiv(num_rows, ROWS_A_PROGRAM),)](
        x.view(-1),  # refuses what is not contiguous
        weight,
        x if by is None else by.cos,
        x if by is None else by.sin,
        num_rows,
        length,
        eps,
        PAIRS_A_HEAD=dim // num_heads // 2,
        ROTATED=by is not None,
        DIM=dim,
        BLOCK=block,
        ROWS=ROWS_A_PROGRAM,
        num_warps=warps,
    )
    return x.view(batch, length, num_heads, -1)
