"""Decodes a group's frames by one call and puts their words into tensors, on a stream of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wan22.pack.layout import EXTENT_BYTES
from wan22.pack.malformed import MalformedFile
from wan22.pack.planes import FRAME_BYTES
from wan22.pack.reader import name_of
from wan22_inference.engine.loading.frames import FrameDecoder, Frames
from wan22_inference.engine.loading.group import GROUP_FRAMES, Group, Member
from wan22_inference.engine.loading.planes import Merge, Parts
from wan22_inference.engine.loading.sources import blaming
from wan22_inference.engine.loading.streams import Mark, Stream


@dataclass(frozen=True)
class Outcome:
    """How the decoding of a group went; to be looked at when its stream has passed."""

    begun: Mark
    decoded: Mark
    merged: Mark
    right: Tensor
    """Whether the frames came out right, a bool each."""
    members: Sequence[Member]

    def check(self) -> None:
        """Raises DataLoss for the first extent that has a frame which did not."""
        wrong = torch.nonzero(~self.right).flatten().tolist()
        if not wrong:
            return
        ends = np.cumsum([count for member in self.members for count in member.contents.counts])
        extents = [(member, piece.extent) for member in self.members for piece in member.contents.pieces]
        member, extent = extents[int(np.searchsorted(ends, wrong[0], side="right"))]
        with blaming(member.batch.source.name):
            raise MalformedFile(f"{name_of(extent)} has frames that do not decode")


class GroupDecoder:
    """One decoding at a time; several decoders share a device well, since each leaves most of it idle."""

    def __init__(self, device: torch.device, decoder: FrameDecoder, merge: Merge) -> None:
        """Takes all the memory it will ever need: a device that gives memory does nothing else meanwhile."""
        self.stream = Stream(device)
        self._decoder = decoder
        self._merge = merge
        self._merged: Mark | None = None
        with self.stream:
            self._top = torch.empty(GROUP_FRAMES * FRAME_BYTES, dtype=torch.uint8, device=device)
            self._uncast = torch.empty(EXTENT_BYTES, dtype=torch.uint8, device=device)
            self._none_right = torch.ones(0, dtype=torch.bool, device=device)
            self.device_bytes = self._top.nbytes + self._uncast.nbytes + decoder.reserve(GROUP_FRAMES)

    def is_free(self) -> bool:
        """Whether it has done what it was given."""
        return self._merged is None or self._merged.is_passed()

    def decode(self, group: Group, copying: Stream, places: Stream) -> Outcome:
        """Starts to decode what a copying stream brings, into tensors of the stream of their places."""
        members = group.members
        frames = Frames.joined([member.contents.frames.moved(member.at) for member in members])
        parts = _joined(members)
        casts = [(cast, member) for member in members for cast in member.contents.casts]
        uncast = [
            Parts(cast.word, np.array([(*cast.row[:4], self._uncast.data_ptr())]), [self._uncast]).moved(
                member.at, member.top
            )
            for cast, member in casts
        ]
        addresses = [some.addresses(group.stored, self._top) for some in (*parts, *uncast)]
        table, *rows = group.upload([frames.addresses(group.stored, self._top), *addresses], copying)
        with self.stream:
            self.stream.follow(copying)
            self.stream.follow(places)
            begun = self.stream.mark()
            right = self._none_right
            if len(frames):
                right = self._decoder.decode(group.stored, frames, self._top, table)
            decoded = self.stream.mark()
            for some, of_some in zip(parts, rows[: len(parts)], strict=True):
                self._merge(group.stored, self._top, some, of_some)
            for (cast, _), some, of_some in zip(casts, uncast, rows[len(parts) :], strict=True):
                self._merge(group.stored, self._top, some, of_some)
                cast.segment.slot.put(cast.segment.at, self._uncast[: cast.segment.length])
            for member in members:
                for segment, begin in member.contents.plain:
                    at = member.at + begin
                    segment.slot.put(segment.at, group.stored[at : at + segment.length])
            self._merged = self.stream.mark()
            group.end(self._merged)
        return Outcome(begun, decoded, self._merged, right, members)

    def synchronize(self) -> None:
        """Returns when its stream has passed."""
        self.stream.synchronize()


def _joined(members: Sequence[Member]) -> Sequence[Parts]:
    """A call for each size of words."""
    by_word: defaultdict[int, list[Parts]] = defaultdict(list)
    for member in members:
        for parts in member.contents.parts:
            by_word[parts.word].append(parts.moved(member.at, member.top))
    return [Parts.joined(several) for several in by_word.values()]
