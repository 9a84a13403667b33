"""The residual sum and the LayerNorm after it, in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from wan22_inference.engine.kernels.launch import row_shape
from wan22_inference.engine.rows8 import FP8, Operand, Rows8

_ROWS_A_PROGRAM = 4
"""Rows that one program takes in turn, so that gate, scale and shift are read once for them."""


@triton.jit(do_not_specialize=["num_rows", "run_start", "run_length", "length"])
def _add_norm(
    x_ptr,
    y_ptr,
    gate_ptr,
    scale_ptr,
    shift_ptr,
    out_ptr,
    row_scale_ptr,
    num_rows,
    run_start,
    run_length,
    length,
    eps,
    HAS_Y: tl.constexpr,
    HAS_GATE: tl.constexpr,
    QUANTISED: tl.constexpr,
    DIM: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """Rows run_start to run_start + run_length of each of the batch, whose items have `length` rows."""
    a = tl.arange(0, MAIN)
    b = MAIN + tl.arange(0, REST)
    inside = b < DIM
    scale_a = tl.load(scale_ptr + a)
    scale_b = tl.load(scale_ptr + b, inside, 0.0)
    shift_a = tl.load(shift_ptr + a)
    shift_b = tl.load(shift_ptr + b, inside, 0.0)
    if HAS_GATE:
        gate_a = tl.load(gate_ptr + a)
        gate_b = tl.load(gate_ptr + b, inside, 0.0)
    for i in range(ROWS):
        index = tl.program_id(0) * ROWS + i
        if index < num_rows:
            row = (index // run_length).to(tl.int64) * length + run_start + index % run_length
            x_row = x_ptr + row * DIM
            x_a = tl.load(x_row + a)
            x_b = tl.load(x_row + b, inside, 0.0)
            if HAS_Y:
                y_a = tl.load(y_ptr + row * DIM + a).to(tl.float32)
                y_b = tl.load(y_ptr + row * DIM + b, inside, 0.0).to(tl.float32)
                if HAS_GATE:
                    y_a = y_a * gate_a
                    y_b = y_b * gate_b
                x_a = (x_a.to(tl.float32) + y_a).to(x_a.dtype)
                x_b = (x_b.to(tl.float32) + y_b).to(x_b.dtype)
                tl.store(x_row + a, x_a)
                tl.store(x_row + b, x_b, inside)
            wide_a = x_a.to(tl.float32)
            wide_b = x_b.to(tl.float32)
            mean = (tl.sum(wide_a, 0) + tl.sum(wide_b, 0)) / DIM
            wide_a = wide_a - mean
            wide_b = tl.where(inside, wide_b - mean, 0.0)
            variance = (tl.sum(wide_a * wide_a, 0) + tl.sum(wide_b * wide_b, 0)) / DIM
            deviation = tl.rsqrt(variance + eps)
            wide_a = wide_a * deviation * scale_a + shift_a
            wide_b = wide_b * deviation * scale_b + shift_b
            if QUANTISED:
                largest = tl.maximum(tl.max(tl.abs(wide_a), 0), tl.max(tl.abs(wide_b), 0))
                largest = tl.where(largest == 0.0, 448.0, largest)
                tl.store(row_scale_ptr + row, largest / 448.0)
                wide_a = wide_a * (448.0 / largest)
                wide_b = wide_b * (448.0 / largest)
            tl.store(out_ptr + row * DIM + a, wide_a.to(out_ptr.dtype.element_ty))
            tl.store(out_ptr + row * DIM + b, wide_b.to(out_ptr.dtype.element_ty), inside)


def add_norm(
    x: Tensor,
    y: Tensor | None,
    gate: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    lengths: tuple[int, ...],
    eps: float,
    *,
    fp8: bool,
) -> Operand:
    """See Operations.add_norm, and Operations.norm where there is no y.

    All tensors are contiguous, but that rows of gate, scale and shift may lie apart.
    """
    batch, length, dim = x.shape
    out = torch.empty_like(x, dtype=FP8 if fp8 else x.dtype)
    row_scale = torch.empty(batch, length, dtype=torch.float32, device=x.device) if fp8 else out
    shape = row_shape(dim)
    start = 0
    for run, run_length in enumerate(lengths):
        num_rows = batch * run_length
        _add_norm[(triton.cdiv(num_rows, _ROWS_A_PROGRAM),)](
            x.view(-1),  # refuses, as all of these do, what is not contiguous
            x if y is None else y.view(-1),
            x if gate is None else gate[run],
            scale[run],
            shift[run],
            out,
            row_scale,
            num_rows,
            start,
            run_length,
            length,
            eps,
            HAS_Y=y is not None,
            HAS_GATE=gate is not None,
            QUANTISED=fp8,
            DIM=dim,
            MAIN=shape.main,
            REST=shape.rest,
            ROWS=_ROWS_A_PROGRAM,
            num_warps=shape.warps,
        )
        start += run_length
    return Rows8(out, row_scale) if fp8 else out
