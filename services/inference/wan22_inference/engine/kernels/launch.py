"""Launch shapes of the kernels that take a whole row at a time: fixed by the row's length, never tuned at run time."""

from __future__ import annotations

import triton

ROWS_A_PROGRAM = 4
"""Rows that one program takes in turn, so that what is the same for all rows is read once for them."""
CHANNELS_A_THREAD = 16


def row_shape(dim: int) -> tuple[int, int]:
    """The channels that a program holds, a power of two, and its warps."""
    block = int(triton.next_power_of_2(dim))
    return block, min(max(block // (32 * CHANNELS_A_THREAD), 1), 16)
