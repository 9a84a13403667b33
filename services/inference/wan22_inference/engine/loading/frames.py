"""Where the zstd frames of extents lie, and where they decode to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
import zstandard
from numpy.typing import NDArray
from torch import Tensor

from wan22.pack.layout import Extent
from wan22.pack.malformed import MalformedFile
from wan22.pack.planes import FRAME_BYTES, frame_lengths
from wan22.pack.reader import name_of

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Frames:
    """Frames by number: where each begins in the stored bytes, its size, and what size it has decoded.

    Each is decoded to FRAME_BYTES of its own, by its number.
    """

    begins: Numbers
    sizes: Numbers
    lengths: Numbers

    def __len__(self) -> int:
        """How many."""
        return len(self.begins)

    def moved(self, stored: int) -> Self:
        """The same, for stored bytes that begin so far on."""
        return type(self)(self.begins + stored, self.sizes, self.lengths)

    @classmethod
    def joined(cls, several: Sequence[Self]) -> Self:
        """All of them, numbered on."""
        begins, sizes, lengths = (
            np.concatenate([getattr(frames, name) for frames in several]) for name in ("begins", "sizes", "lengths")
        )
        return cls(begins, sizes, lengths)

    @property
    def targets(self) -> Numbers:
        """Where each goes in the decoded bytes."""
        return np.arange(len(self), dtype=np.int64) * FRAME_BYTES

    def addresses(self, stored: Tensor, target: Tensor) -> Numbers:
        """(4, n): addresses and sizes of sources, then of targets, in these two."""
        return np.stack([self.begins + stored.data_ptr(), self.sizes, self.targets + target.data_ptr(), self.lengths])


class FrameDecoder(Protocol):
    """Decodes zstd frames on one device."""

    def reserve(self, count: int) -> int:
        """Takes the memory of the device that it needs for so many frames in one call; returns its bytes."""
        ...

    def decode(self, stored: Tensor, frames: Frames, target: Tensor, table: Tensor) -> Tensor:
        """Fills `target`; both are uint8, and `table` is the frames' addresses in them, on the device.

        Returns a bool a frame, that it came out right.
        """
        ...


def frames_of(extents: Sequence[Extent], begins: Sequence[int], stored: memoryview) -> tuple[Frames, Sequence[int]]:
    """The frames of extents that lie there in some stored bytes, in order, and how many each has.

    Few calls an extent: Python's lock is held by one thread at a time. Raises MalformedFile where an extent's lengths
    do not fit it.
    """
    found = [_lengths_of(one, stored[at : at + one.size]) for one, at in zip(extents, begins, strict=True)]
    if not found:
        none = np.zeros(0, np.int64)
        return Frames(none, none, none), ()
    counts = np.array([len(sizes) for _, sizes in found])
    sizes = np.concatenate([sizes for _, sizes in found])
    lasts = np.cumsum(counts) - 1
    ends = np.cumsum(sizes)
    firsts = np.array([at + first for at, (first, _) in zip(begins, found, strict=True)])
    before = np.concatenate([[0], ends[lasts[:-1]]])
    words = np.array([one.length // one.word for one in extents])
    lengths = np.full(len(sizes), FRAME_BYTES)
    lengths[lasts] = words - (counts - 1) * FRAME_BYTES
    return Frames(ends - sizes + np.repeat(firsts - before, counts), sizes, lengths), counts.tolist()


def _lengths_of(extent: Extent, stored: memoryview) -> tuple[int, Numbers]:
    try:
        return frame_lengths(stored, extent.length, extent.word)
    except MalformedFile as error:
        raise MalformedFile(f"{name_of(extent)} is none of {extent.codec.name}: {error}") from None


class PlainDecoder:
    """Decodes on the CPU, one frame after the other."""

    def reserve(self, count: int) -> int:  # noqa: ARG002
        """See FrameDecoder; it needs nothing."""
        return 0

    def decode(self, stored: Tensor, frames: Frames, target: Tensor, table: Tensor) -> Tensor:  # noqa: ARG002
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
