"""Where the zstd frames of a batch of extents lie, and where they decode to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import zstandard
from numpy.typing import NDArray
from torch import Tensor

from wan22.pack.layout import Extent
from wan22.pack.planes import FRAME_BYTES, frame_lengths

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Frames:
    """Frames by number: where each begins in the stored bytes, its size, where it goes, and what size it has then."""

    begins: Numbers
    sizes: Numbers
    targets: Numbers
    lengths: Numbers

    def __len__(self) -> int:
        """How many."""
        return len(self.begins)

    def addresses(self, stored: int, target: int) -> Numbers:
        """(4, n): addresses and sizes of sources, then of targets, from the addresses of the two."""
        return np.stack([self.begins + stored, self.sizes, self.targets + target, self.lengths])


Upload = Callable[[Numbers], Tensor]
"""Brings a table to the device of a lane."""


class FrameDecoder(Protocol):
    """Decodes zstd frames on one device."""

    def decode(self, stored: Tensor, frames: Frames, target: Tensor, upload: Upload) -> Tensor:
        """Fills `target`; both are uint8. Returns a bool a frame, that it came out right."""
        ...


@dataclass(frozen=True)
class Placed:
    """An extent, where it is stored in a batch, and where its top bytes go."""

    extent: Extent
    at: int
    top: int


def frames_of(placed: Sequence[Placed], stored: Callable[[Extent], memoryview]) -> tuple[Frames, Sequence[int]]:
    """The frames of extents, in order, and how many each has; `stored` gives an extent's bytes.

    Few calls an extent: Python's lock is held by one lane at a time. Raises MalformedFile where an extent's lengths do
    not fit it.
    """
    found = [frame_lengths(stored(one.extent), one.extent.length, one.extent.word) for one in placed]
    counts = [len(sizes) for _, sizes in found]
    sizes = np.concatenate([sizes for _, sizes in found])
    ends = np.cumsum(sizes)
    firsts = np.cumsum(counts) - counts
    begins = ends - sizes
    shifts = np.array([one.at + begin for one, (begin, _) in zip(placed, found, strict=True)]) - begins[firsts]
    targets = (np.arange(len(sizes), dtype=np.int64) - np.repeat(firsts, counts)) * FRAME_BYTES
    words = np.repeat([one.extent.length // one.extent.word for one in placed], counts)
    lengths = np.minimum(words - targets, FRAME_BYTES)
    targets += np.repeat([one.top for one in placed], counts)
    return Frames(begins + np.repeat(shifts, counts), sizes, targets, lengths), counts


class PlainDecoder:
    """Decodes on the CPU, one frame after the other."""

    def decode(self, stored: Tensor, frames: Frames, target: Tensor, upload: Upload) -> Tensor:  # noqa: ARG002
        """See FrameDecoder; both tensors are on the CPU."""
        source, out = stored.numpy(), target.numpy()
        right = torch.zeros(len(frames), dtype=torch.bool)
        fields = (frames.begins.tolist(), frames.sizes.tolist(), frames.targets.tolist(), frames.lengths.tolist())
        for number, (begin, size, to, length) in enumerate(zip(*fields, strict=True)):
            frame = source[begin : begin + size].data
            try:
                if zstandard.get_frame_parameters(frame).content_size != length:
                    continue
                content = zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
            except zstandard.ZstdError:
                continue
            out[to : to + length] = np.frombuffer(content, np.uint8)
            right[number] = True
        return right
