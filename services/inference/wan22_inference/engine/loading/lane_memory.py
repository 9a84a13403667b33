"""The host's memory that a lane, or a reader, reads into; pinned where a GPU copies from it."""

from __future__ import annotations

import torch
from torch import Tensor

from wan22.pack.layout import ALIGNMENT


def make_lane_memory(size: int, *, pinned: bool) -> Tensor:
    """`size` bytes, a multiple of ALIGNMENT, that start at one, as direct reads need it.

    The allocator of pinned memory rounds up to a power of two.
    """
    whole = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
    shift = -whole.data_ptr() % ALIGNMENT
    if shift:
        whole = torch.empty(size + ALIGNMENT, dtype=torch.uint8, pin_memory=pinned)
        shift = -whole.data_ptr() % ALIGNMENT
    return whole[shift : shift + size]
