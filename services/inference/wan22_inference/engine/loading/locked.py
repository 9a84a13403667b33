"""Page-locked memory of the host, in pieces that waste little.

Torch takes a power of two for each piece of it: half as much again as a large model's tensors have, if each is a piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

MOST_SHARING = 16
"""Rooms in a piece."""


def host_rooms(sizes: Sequence[int], device: torch.device) -> Iterator[Tensor]:
    """Rooms of these sizes, in bytes, one after the other, page-locked where the device is a CUDA device.

    A piece is made when its first room is asked for, so that what moves from elsewhere has left before the next is.
    """
    for group in sharing(sizes):
        taken = [sizes[number] for number in group]
        piece = torch.empty(sum(taken), dtype=torch.uint8, pin_memory=device.type == "cuda")
        yield from torch.split(piece, taken)


def sharing(sizes: Sequence[int]) -> Iterator[range]:
    """Which rooms share a piece: as many on end as waste least."""
    begin = 0
    while begin < len(sizes):
        size, best, least = 0, 1, float("inf")
        for count, more in enumerate(sizes[begin : begin + MOST_SHARING], 1):
            size += more
            waste = (1 << (size - 1).bit_length()) / max(size, 1)
            if waste < least:
                best, least = count, waste
        yield range(begin, begin + best)
        begin += best
