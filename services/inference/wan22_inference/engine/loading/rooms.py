"""Memory of a device for the tensors of a module, taken for a whole block at once.

Taken tensor by tensor, each waits its turn at the driver behind the copies and launches of the load that it is for.
"""

from __future__ import annotations

import re
from collections import Counter
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
        self._tensors = tensors
        self._device = device
        self._sizes: Counter[str] = Counter()
        for name, tensor in tensors.items():
            self._sizes[_room_of(name)] += aligned(tensor.nbytes)
        self._rooms: dict[str, Tensor] = {}
        """What is left of each."""

    def take(self, name: str) -> Tensor:
        """The tensor of a name, whatever its memory holds; once for each name. Its room is made with its first."""
        like, room = self._tensors[name], _room_of(name)
        if room not in self._rooms:
            self._rooms[room] = torch.empty(self._sizes[room], dtype=torch.uint8, device=self._device)
        left = self._rooms[room]
        self._rooms[room] = left[aligned(like.nbytes) :]
        return left[: like.nbytes].view(like.dtype).view(like.shape)


def _room_of(name: str) -> str:
    found = _BLOCK.match(name)
    return name if found is None else found[0]


def aligned(size: int) -> int:
    """The next multiple of ALIGNMENT."""
    return -(-size // ALIGNMENT) * ALIGNMENT
