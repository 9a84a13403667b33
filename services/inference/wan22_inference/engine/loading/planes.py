"""Words from their planes on a GPU, and the plain path of it; wan22.pack.planes says what the planes are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from wan22_inference.engine.loading.frames import Numbers

Row = tuple[int, int, int, int, int]
"""Neighbouring words of one extent, and where they go.

Where the lowest byte of the first one is in the stored bytes, if words have more than one; where its top byte is in
the decoded bytes; how far it is from a word's byte to its next higher one, but the top one is elsewhere; how many
words; the address that the first one is written to.
"""


@dataclass(frozen=True)
class Parts:
    """What one call of a merge writes: rows by offset, of which a device takes addresses."""

    word: int
    """Bytes of each word."""
    rows: Numbers
    """(n, 5), n > 0: see Row."""
    targets: Sequence[Tensor]
    """The uint8 memory that each row's address lies in."""

    def moved(self, stored: int, top: int) -> Self:
        """The same, for stored and decoded bytes that begin so far on."""
        return type(self)(self.word, self._plus(stored, top), self.targets)

    def addresses(self, stored: Tensor, top: Tensor) -> Numbers:
        """(n, 5): the rows with addresses in place of offsets."""
        return self._plus(stored.data_ptr(), top.data_ptr())

    def _plus(self, stored: int, top: int) -> Numbers:
        return self.rows + np.array([stored, top, 0, 0, 0], np.int64)

    @classmethod
    def joined(cls, several: Sequence[Self]) -> Self:
        """All of them, which have words of one size."""
        targets = [target for parts in several for target in parts.targets]
        return cls(several[0].word, np.concatenate([parts.rows for parts in several]), targets)


class Merge(Protocol):
    """Writes words to where they go."""

    def __call__(self, stored: Tensor, top: Tensor, parts: Parts, table: Tensor) -> None:
        """`stored` and `top` are uint8, on the device of the targets; `table` is the parts' addresses there."""
        ...


def merge_for(device: torch.device) -> Merge:
    """The way of a device."""
    return merge_by_kernel if device.type == "cuda" else merge_plainly


def merge_plainly(stored: Tensor, top: Tensor, parts: Parts, table: Tensor) -> None:  # noqa: ARG001
    """See Merge."""
    word = parts.word
    for (lower, first, step, count, address), target in zip(parts.rows.tolist(), parts.targets, strict=True):
        starts = [lower + plane * step for plane in range(word - 1)]
        planes = [stored[start : start + count] for start in starts] + [top[first : first + count]]
        rotated = sum(
            (plane.to(torch.int64) << 8 * n for n, plane in enumerate(planes)), torch.zeros((), dtype=torch.int64)
        )
        words = rotated if word == 1 else (rotated >> 1) | ((rotated & 1) << (8 * word - 1))
        data = words.view(torch.uint8).view(-1, 8)[:, :word]
        at = address - target.data_ptr()
        target[at : at + word * count].view(-1, word).copy_(data)


def merge_by_kernel(stored: Tensor, top: Tensor, parts: Parts, table: Tensor) -> None:  # noqa: ARG001
    """See Merge."""
    from wan22_inference.engine.kernels import merge_planes  # noqa: PLC0415  # imports triton, which CPUs do without

    merge_planes.launch(table, int(parts.rows[:, 3].max()), parts.word)
