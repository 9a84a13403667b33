"""The host's memory that a load reads into: one piece, cut into a part a lane; pinned where a GPU copies from it."""

from __future__ import annotations

import torch
from torch import Tensor

from wan22.pack.layout import ALIGNMENT


def make_lane_memory(count: int, size: int, *, pinned: bool) -> list[Tensor]:
    """`count` tensors of `size` bytes, a multiple of ALIGNMENT; each starts at one, as direct reads need it.

    One allocation, because the allocator of pinned memory rounds each up to a power of two.
    """
    whole = torch.empty(count * size, dtype=torch.uint8, pin_memory=pinned)
    shift = -whole.data_ptr() % ALIGNMENT
    if shift:
        whole = torch.empty(count * size + ALIGNMENT, dtype=torch.uint8, pin_memory=pinned)
        shift = -whole.data_ptr() % ALIGNMENT
    return [whole[shift + n * size : shift + (n + 1) * size] for n in range(count)]
