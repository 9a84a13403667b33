"""Memory of a device for the tensors of a module, taken for a whole block at once.

Taken tensor by tensor, each waits its turn at the driver behind the copies and launches of the load that it is for.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

ALIGNMENT = 512
"""Bytes: where the allocator's own tensors begin, too."""
_BLOCK = re.compile(r"blocks\.\d+\.")
"""How names begin of what comes and goes together: a DiT's and a text encoder's blocks."""


class Rooms:
    """Rooms for blocks, each with a place for every tensor of its block; other tensors have their own."""

    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """For tensors like these, which may be on the meta device."""
        self._device = device
        self._blocks: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, tensor in tensors.items():
            self._blocks[_block_of(name)][name] = tensor
        self._laid: dict[str, Tensor] = {}

    def take(self, name: str) -> Tensor:
        """The tensor of a name, whatever its memory holds. A block's room is made with the first of its tensors."""
        if name not in self._laid:
            block = self._blocks[_block_of(name)]
            self._laid |= laid_out(block, torch.empty(room_bytes(block), dtype=torch.uint8, device=self._device))
        return self._laid[name]


def laid_out(tensors: Mapping[str, Tensor], room: Tensor) -> dict[str, Tensor]:
    """Tensors like these in a room of bytes, one after the other."""
    laid: dict[str, Tensor] = {}
    at = 0
    for name, tensor in tensors.items():
        laid[name] = room[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        at += _aligned(tensor.nbytes)
    return laid


def room_bytes(tensors: Mapping[str, Tensor]) -> int:
    """What `laid_out` needs for them."""
    return sum(_aligned(tensor.nbytes) for tensor in tensors.values())


def _block_of(name: str) -> str:
    found = _BLOCK.match(name)
    return name if found is None else found[0]


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
