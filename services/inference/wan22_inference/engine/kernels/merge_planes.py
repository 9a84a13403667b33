"""Puts words together again from the planes that a pack stores them in, for all parts of a group in one launch."""

from __future__ import annotations

import threading

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096
"""Words a program."""
_LAUNCHING = threading.Lock()
"""Loaders launch from threads of their own, and the first launch compiles."""


@triton.jit
def _merge_planes(rows_ptr, WORD: tl.constexpr, BLOCK: tl.constexpr) -> None:
    """A row: addresses of the lowest plane and of the top one, from one plane to the next, words, address to write."""
    row = rows_ptr + tl.program_id(0) * 5
    count = tl.load(row + 3)
    start = tl.program_id(1).to(tl.int64) * BLOCK
    if start < count:
        n = start + tl.arange(0, BLOCK)
        inside = n < count
        top = tl.load((tl.load(row + 1) + n).to(tl.pointer_type(tl.uint8)), inside, 0)
        if WORD == 1:
            tl.store((tl.load(row + 4) + n).to(tl.pointer_type(tl.uint8)), top, inside)
        elif WORD == 2:
            low = tl.load((tl.load(row) + n).to(tl.pointer_type(tl.uint8)), inside, 0)
            rotated = low.to(tl.uint16) | (top.to(tl.uint16) << 8)
            word = (rotated >> 1) | (rotated << 15)
            tl.store((tl.load(row + 4) + 2 * n).to(tl.pointer_type(tl.uint16)), word, inside)
        else:
            plane = tl.load(row) + n
            step = tl.load(row + 2)
            rotated = tl.load(plane.to(tl.pointer_type(tl.uint8)), inside, 0).to(tl.uint32)
            rotated |= tl.load((plane + step).to(tl.pointer_type(tl.uint8)), inside, 0).to(tl.uint32) << 8
            rotated |= tl.load((plane + 2 * step).to(tl.pointer_type(tl.uint8)), inside, 0).to(tl.uint32) << 16
            rotated |= top.to(tl.uint32) << 24
            word = (rotated >> 1) | (rotated << 31)
            tl.store((tl.load(row + 4) + 4 * n).to(tl.pointer_type(tl.uint32)), word, inside)


def launch(rows: Tensor, longest: int, word: int) -> None:
    """`rows` (n, 5) int64 as the kernel takes them, on the device; none has more than `longest` words."""
    with _LAUNCHING:
        _merge_planes[len(rows), triton.cdiv(longest, BLOCK)](rows, WORD=word, BLOCK=BLOCK, num_warps=4)
