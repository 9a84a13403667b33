"""The residual sum and the LayerNorm after it, in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from wan22_inference.engine.kernels.launch import ROWS_A_PROGRAM, row_shape
from wan22_inference.engine.rows8 import FP8, Operand, Rows8


@triton.jit
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
    HAS_NORM: tl.constexpr,
    QUANTISED: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """Rows run_start to run_start + run_length of each of the batch, whose items have `length` rows."""
    channel = tl.arange(0, BLOCK)
    inside = channel < DIM
    if HAS_GATE:
        gate = tl.load(gate_ptr + channel, inside, 0.0)
    if HAS_NORM:
        scale = tl.load(scale_ptr + channel, inside, 0.0)
        shift = tl.load(shift_ptr + channel, inside, 0.0)
    for i in range(ROWS):
        index = tl.program_id(0) * ROWS + i
        if index < num_rows:
            row = (index // run_length).to(tl.int64) * length + run_start + index % run_length
            x = tl.load(x_ptr + row * DIM + channel, inside, 0.0)
            if HAS_Y:
                y = tl.load(y_ptr + row * DIM + channel, inside, 0.0).to(tl.float32)
                if HAS_GATE:
                    y = y * gate
                x = (x.to(tl.float32) + y).to(x.dtype)
                tl.store(x_ptr + row * DIM + channel, x, inside)
            if HAS_NORM:
                wide = x.to(tl.float32)
                mean = tl.sum(wide, 0) / DIM
                centred = tl.where(inside, wide - mean, 0.0)
                variance = tl.sum(centred * centred, 0) / DIM
                normed = centred * tl.rsqrt(variance + eps) * scale + shift
                if QUANTISED:
                    row_scale = tl.max(tl.abs(normed), 0) / 448.0
                    row_scale = tl.where(row_scale == 0.0, 1.0, row_scale)
                    tl.store(row_scale_ptr + row, row_scale)
                    normed = normed / row_scale
                tl.store(out_ptr + row * DIM + channel, normed.to(out_ptr.dtype.element_ty), inside)


def add_norm(
    x: Tensor,
    y: Tensor | None,
    gate: Tensor | None,
    norm: tuple[Tensor, Tensor] | None,
    lengths: tuple[int, ...],
    eps: float,
    *,
    fp8: bool,
) -> Operand:
    """See Operations.add_norm: with `norm` (scale, shift) the norm of the sum, else the sum itself.

    All tensors are contiguous, but that rows of gate, scale and shift may lie apart.
    """
    batch, length, dim = x.shape
    out = x if norm is None else torch.empty_like(x, dtype=FP8 if fp8 else x.dtype)
    row_scale = torch.empty(batch, length, dtype=torch.float32, device=x.device) if fp8 else out
    block, warps = row_shape(dim)
    start = 0
    for run, run_length in enumerate(lengths):
        num_rows = batch * run_length
        _add_norm[(triton.cdiv(num_rows, ROWS_A_PROGRAM),)](
            x.view(-1),  # refuses, as all of these do, what is not contiguous
            x if y is None else y.view(-1),
            x if gate is None else gate[run],
            x if norm is None else norm[0][run],
            x if norm is None else norm[1][run],
            out,
            row_scale,
            num_rows,
            start,
            run_length,
            length,
            eps,
            HAS_Y=y is not None,
            HAS_GATE=gate is not None,
            HAS_NORM=norm is not None,
            QUANTISED=fp8,
            DIM=dim,
            BLOCK=block,
            ROWS=ROWS_A_PROGRAM,
            num_warps=warps,
        )
        start += run_length
    return Rows8(out, row_scale) if fp8 else out
