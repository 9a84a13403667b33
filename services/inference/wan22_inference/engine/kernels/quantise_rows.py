"""Quantisation by rows, of a tensor or of its GELU, in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from wan22_inference.engine.kernels.launch import row_shape
from wan22_inference.engine.rows8 import FP8, Rows8


@triton.jit
def _gelu(x):  # noqa: ANN202  # a tensor of Triton's
    """The tanh form: x (1 + tanh(u)) / 2 is x sigmoid(2 u), with u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


@triton.jit(do_not_specialize=["length"])
def _quantise_rows(
    x_ptr,
    addend_ptr,
    out_ptr,
    scale_ptr,
    length,
    HAS_ADDEND: tl.constexpr,
    GELU: tl.constexpr,
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
    if HAS_ADDEND:
        addend = addend_ptr + row // length * DIM
        x_a += tl.load(addend + a)
        x_b += tl.load(addend + b, inside, 0.0)
    if GELU:
        x_a = _gelu(x_a)
        x_b = _gelu(x_b)
    largest = tl.maximum(tl.max(tl.abs(x_a), 0), tl.max(tl.abs(x_b), 0))
    largest = tl.where(largest == 0.0, 448.0, largest)
    tl.store(scale_ptr + row, largest / 448.0)
    tl.store(out_ptr + row * DIM + a, (x_a * (448.0 / largest)).to(out_ptr.dtype.element_ty))
    tl.store(out_ptr + row * DIM + b, (x_b * (448.0 / largest)).to(out_ptr.dtype.element_ty), inside)


def quantise_rows(x: Tensor, addend: Tensor | None, *, gelu: bool) -> Rows8:
    """See Operations.quantise and Operations.gelu_rows; x (..., K) and the addend are contiguous."""
    dim = x.shape[-1]
    out = torch.empty_like(x, dtype=FP8)
    scale = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    shape = row_shape(dim)
    _quantise_rows[(scale.numel(),)](
        x.view(-1),  # refuses what is not contiguous
        x if addend is None else addend.view(-1),
        out,
        scale,
        x.shape[-2],
        HAS_ADDEND=addend is not None,
        GELU=gelu,
        DIM=dim,
        MAIN=shape.main,
        REST=shape.rest,
        num_warps=shape.warps,
    )
    return Rows8(out, scale)
