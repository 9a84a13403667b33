"""Where the zstd frames of a batch of extents lie, and where they decode to."""

from __future__ import annotations

from collections.abc import Callable
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


def frames_of(extent: Extent, stored: memoryview, at: int, target: int) -> Frames:
    """The frames of one extent that is stored at `at` of a batch and decodes to `target`; `stored` has its bytes.

    Raises MalformedFile where its lengths do not fit it.
    """
    begin, sizes = frame_lengths(stored, extent.length, extent.word)
    ends = np.cumsum(sizes)
    count = extent.length // extent.word
    targets = np.arange(len(sizes), dtype=np.int64) * FRAME_BYTES
    return Frames(at + begin + ends - sizes, sizes, target + targets, np.minimum(count - targets, FRAME_BYTES))


def join(parts: list[Frames]) -> Frames:
    """All of them, in order."""
    fields = [(part.begins, part.sizes, part.targets, part.lengths) for part in parts]
    return Frames(*(np.concatenate(column) for column in zip(*fields, strict=True)))


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
