"""Words from their planes on a GPU, and the plain path of it; wan22.pack.planes says what the planes are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from wan22_inference.engine.loading.frames import Upload


@dataclass(frozen=True)
class Part:
    """Neighbouring words of one extent, and where they go."""

    lower: int
    """Of the first one's lowest byte in the stored bytes, if words have more than one."""
    step: int
    """From a word's byte to its next higher one; but the top one is elsewhere."""
    top: int
    """Of the first one's top byte in the decoded bytes."""
    count: int
    """Words."""
    target: Tensor
    """uint8 memory."""
    at: int
    """Of the first word in the target, in bytes."""


class Merge(Protocol):
    """Writes words to where they go."""

    def __call__(self, stored: Tensor, top: Tensor, parts: Sequence[Part], word: int, upload: Upload) -> None:
        """`stored` and `top` are uint8, on the device of the targets; words have `word` bytes."""
        ...


def merge_for(device: torch.device) -> Merge:
    """The way of a device."""
    return merge_by_kernel if device.type == "cuda" else merge_plainly


def merge_plainly(stored: Tensor, top: Tensor, parts: Sequence[Part], word: int, upload: Upload) -> None:  # noqa: ARG001
    """See Merge."""
    for part in parts:
        starts = [part.lower + plane * part.step for plane in range(word - 1)]
        planes = [stored[start : start + part.count] for start in starts] + [top[part.top : part.top + part.count]]
        rotated = sum(
            (plane.to(torch.int64) << 8 * n for n, plane in enumerate(planes)), torch.zeros((), dtype=torch.int64)
        )
        words = rotated if word == 1 else (rotated >> 1) | ((rotated & 1) << (8 * word - 1))
        data = words.view(torch.uint8).view(-1, 8)[:, :word]
        part.target[part.at : part.at + word * part.count].view(-1, word).copy_(data)


def merge_by_kernel(stored: Tensor, top: Tensor, parts: Sequence[Part], word: int, upload: Upload) -> None:
    """See Merge."""
    from wan22_inference.engine.kernels import merge_planes  # noqa: PLC0415  # imports triton, which CPUs do without

    rows = np.array(
        [
            (stored.data_ptr() + p.lower, top.data_ptr() + p.top, p.step, p.count, p.target.data_ptr() + p.at)
            for p in parts
        ],
        dtype=np.int64,
    )
    merge_planes.launch(upload(rows), max(part.count for part in parts), word)
