"""Quantisation by rows, of a tensor or of its GELU, in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from wan22_inference.engine.kernels.launch import row_shape
from wan22_inference.engine.rows8 import FP8, Rows8


@triton.jit
def _quantise_rows(x_ptr, out_ptr, scale_ptr, GELU: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    inside = channel < DIM
    x = tl.load(x_ptr + row * DIM + channel, inside, 0.0).to(tl.float32)
    if GELU:
        # tanh form: x (1 + tanh(u)) / 2 is x sigmoid(2 u), with u = sqrt(2 / pi) (x + 0.044715 x^3)
        x = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    scale = tl.max(tl.abs(x), 0) / 448.0
    scale = tl.where(scale == 0.0, 1.0, scale)
    tl.store(scale_ptr + row, scale)
    tl.store(out_ptr + row * DIM + channel, (x / scale).to(out_ptr.dtype.element_ty), inside)


def quantise_rows(x: Tensor, *, gelu: bool) -> Rows8:
    """See Operations.quantise and Operations.gelu_rows; x (..., K) is contiguous."""
    dim = x.shape[-1]
    out = torch.empty_like(x, dtype=FP8)
    scale = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    block, warps = row_shape(dim)
    _quantise_rows[(scale.numel(),)](x.view(-1), out, scale, GELU=gelu, DIM=dim, BLOCK=block, num_warps=warps)
    return Rows8(out, scale)
