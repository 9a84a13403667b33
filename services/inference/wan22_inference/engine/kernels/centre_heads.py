"""Values less their mean, in float8, in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from wan22_inference.engine.heads8 import Heads8
from wan22_inference.engine.kernels.launch import row_shape
from wan22_inference.engine.rows8 import FP8


@triton.jit
def _cut(x):  # noqa: ANN202  # a tensor of Triton's
    return tl.minimum(tl.maximum(x, -448.0), 448.0)


@triton.jit(do_not_specialize=["length"])
def _centre_heads(
    x_ptr,
    mean_ptr,
    scale_ptr,
    out_ptr,
    length,
    HEAD: tl.constexpr,
    DIM: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    a = tl.arange(0, MAIN)
    b = MAIN + tl.arange(0, REST)
    inside = b < DIM
    mean = mean_ptr + row // length * DIM
    scale = scale_ptr + row // length * (DIM // HEAD)
    x_a = tl.load(x_ptr + row * DIM + a).to(tl.float32) - tl.load(mean + a)
    x_b = tl.load(x_ptr + row * DIM + b, inside, 0.0).to(tl.float32) - tl.load(mean + b, inside, 0.0)
    x_a = _cut(x_a / tl.load(scale + a // HEAD))
    x_b = _cut(x_b / tl.load(scale + b // HEAD, inside, 1.0))
    tl.store(out_ptr + row * DIM + a, x_a.to(out_ptr.dtype.element_ty))
    tl.store(out_ptr + row * DIM + b, x_b.to(out_ptr.dtype.element_ty), inside)


def centre_heads(x: Tensor, mean: Tensor, scale: Tensor) -> Heads8:
    """See Operations.centred_heads8; all are contiguous."""
    batch, length, dim = x.shape
    num_heads = scale.shape[1]
    out = torch.empty_like(x, dtype=FP8)
    shape = row_shape(dim)
    _centre_heads[(batch * length,)](
        x.view(-1),  # refuses what is not contiguous
        mean.view(-1),
        scale.view(-1),
        out,
        length,
        HEAD=dim // num_heads,
        DIM=dim,
        MAIN=shape.main,
        REST=shape.rest,
        num_warps=shape.warps,
    )
    return Heads8(out.view(batch, length, num_heads, -1), scale)
