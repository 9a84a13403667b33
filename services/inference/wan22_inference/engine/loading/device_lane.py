"""Reads extents as they are stored, copies them to the GPU and decodes them there, one lane a thread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wan22.pack.layout import Codec, Extent
from wan22.pack.malformed import MalformedFile
from wan22.pack.reader import check_extent, name_of
from wan22_inference.engine.loading.frames import FrameDecoder, Numbers, Placed, frames_of
from wan22_inference.engine.loading.plan import Batch, Piece, Segment
from wan22_inference.engine.loading.planes import Merge, Part
from wan22_inference.engine.loading.sources import Source, blaming
from wan22_inference.engine.loading.spent import Clock, Step
from wan22_inference.engine.loading.streams import Mark, Stream

LANE_BYTES = 32 << 20
TABLE_BYTES = 64 << 10
BATCH_BYTES = LANE_BYTES - TABLE_BYTES
"""Six extents of bfloat16 weights, with some 200 frames, which keep some 100 multiprocessors busy while other lanes
copy."""
DEVICE_BYTES = 140 << 20
"""Of the device, that a lane takes at most beside the weights: a batch as stored, as decoded, and what nvCOMP asks
for."""
ALIGNED_PART = 16
"""Bytes at whose multiples parts of the scratch memory begin."""


class DeviceLane:
    """Decodes first and verifies later what was in the page cache: hashing is slower than all the rest.

    What came from the disk itself is verified before it is decoded.
    """

    def __init__(
        self, memory: Tensor, stream: Stream, device: torch.device, decoder: FrameDecoder, merge: Merge
    ) -> None:
        self._memory = memory[:BATCH_BYTES]
        self._view = self._memory.numpy().data
        self._table = _Table(memory[BATCH_BYTES:], device)
        self.stream = stream
        self.clock = Clock()
        self._device = device
        self._decoder = decoder
        self._merge = merge
        with stream:
            self._stored = torch.empty(BATCH_BYTES, dtype=torch.uint8, device=device)
            self._top = self._stored[:0]
        self._outcomes: list[_Outcome] = []
        self._marks: list[tuple[Mark, Mark, Mark, Mark]] = []

    def load(self, batch: Batch) -> int:
        """Starts to fill the batch's segments; returns how many bytes came from the disk itself: 0 is unverified.

        Raises DataLoss for damage that shows at once, OSError.
        """
        with self.stream:
            direct = batch.source.reader.read(batch.offset, self._view[: batch.size])
            self.clock.lap(Step.READING)
            if direct:
                with blaming(batch.source.name):
                    for piece in batch.pieces:
                        check_extent(piece.extent, self._stored_of(batch, piece.extent))
                self.clock.lap(Step.CHECKING)
            begun = self.stream.mark()
            stored = self._stored[: batch.size]
            stored.copy_(self._memory[: batch.size], non_blocking=True)
            copied = self.stream.mark()
            decoded = self._decode(batch, [piece for piece in batch.pieces if piece.extent.codec is Codec.PLANES_ZSTD])
            for piece in batch.pieces:
                if piece.extent.codec is Codec.NONE:
                    begin = piece.extent.offset - batch.offset
                    for segment in piece.segments:
                        at = begin + segment.begin
                        segment.slot.put(segment.at, stored[at : at + segment.length])
            self._marks.append((begun, copied, decoded or copied, self.stream.mark()))
            self.clock.lap(Step.PREPARING)
            copied.wait()  # the next batch is read to where this one was copied from
            self.clock.lap(Step.WAITING)
        return direct

    def finish(self) -> None:
        """Waits for what is outstanding. Raises DataLoss for extents that did not decode."""
        self.stream.synchronize()
        marks, self._marks = self._marks, []
        for begun, copied, decoded, put in marks:
            self.clock.add(Step.COPYING, copied.seconds_since(begun))
            self.clock.add(Step.DECODING, decoded.seconds_since(copied))
            self.clock.add(Step.MERGING, put.seconds_since(decoded))
        outcomes, self._outcomes = self._outcomes, []
        with self.stream:  # not the one that a generation computes on
            right = bool(torch.cat([outcome.right for outcome in outcomes]).all()) if outcomes else True
            for outcome in () if right else outcomes:
                outcome.check()
        self.clock.lap(Step.WAITING)

    def _stored_of(self, batch: Batch, extent: Extent) -> memoryview:
        begin = extent.offset - batch.offset
        return self._view[begin : begin + extent.size]

    def _decode(self, batch: Batch, pieces: list[Piece]) -> Mark | None:
        """Starts it, and returns when all but the merging is done."""
        if not pieces:
            return None
        placed: list[Placed] = []
        parts: defaultdict[int, list[Part]] = defaultdict(list)
        casts: list[tuple[Segment, int]] = []
        top = scratch = 0
        for piece in pieces:
            placed.append(Placed(piece.extent, piece.extent.offset - batch.offset, top))
            for segment in piece.segments:
                if segment.slot.bytes is None:
                    casts.append((segment, scratch))
                    scratch += -(-segment.length // ALIGNED_PART) * ALIGNED_PART
            top += -(-piece.extent.length // piece.extent.word // ALIGNED_PART) * ALIGNED_PART
        with blaming(batch.source.name):
            frames, counts = frames_of(placed, lambda extent: self._stored_of(batch, extent))
        if len(self._top) < top:
            self._top = torch.empty(top, dtype=torch.uint8, device=self._device)
        uncast = torch.empty(scratch, dtype=torch.uint8, device=self._device)
        begins = {id(segment): begin for segment, begin in casts}
        right = self._decoder.decode(self._stored, frames, self._top, self._table.upload)
        self._outcomes.append(_Outcome(batch.source, pieces, counts, right))
        decoded = self.stream.mark()
        for piece, one in zip(pieces, placed, strict=True):
            parts[piece.extent.word] += _parts(piece, one, uncast, begins)
        for word, of_word in parts.items():
            self._merge(self._stored, self._top, of_word, word, self._table.upload)
        for segment, begin in casts:
            segment.slot.put(segment.at, uncast[begin : begin + segment.length])
        self._table.turn()
        return decoded


@dataclass(frozen=True)
class _Outcome:
    """Whether the frames of a batch came out right."""

    source: Source
    pieces: Sequence[Piece]
    counts: Sequence[int]
    """Frames of each."""
    right: Tensor

    def check(self) -> None:
        """Raises DataLoss for the first extent that did not."""
        wrong = torch.nonzero(~self.right).flatten().tolist()
        if wrong:
            number = int(np.searchsorted(np.cumsum(self.counts), wrong[0], side="right"))
            with blaming(self.source.name):
                raise MalformedFile(f"{name_of(self.pieces[number].extent)} has frames that do not decode")


def _parts(piece: Piece, placed: Placed, uncast: Tensor, begins: dict[int, int]) -> Sequence[Part]:
    extent, parts = piece.extent, []
    for segment in piece.segments:
        first, target = segment.begin // extent.word, segment.slot.bytes
        parts.append(
            Part(
                lower=placed.at + first,
                step=extent.length // extent.word,
                top=placed.top + first,
                count=segment.length // extent.word,
                target=uncast if target is None else target,
                at=begins[id(segment)] if target is None else segment.at,
            )
        )
    return parts


class _Table:
    """Pinned memory from which a batch's tables are copied, each to memory of its own on the device.

    Two halves in turn: when a batch is begun, the copies of the one before the last have passed.
    """

    def __init__(self, memory: Tensor, device: torch.device) -> None:
        whole = memory.view(torch.int64)
        self._halves = whole[: len(whole) // 2], whole[len(whole) // 2 :]
        self._device = device
        self._used = 0

    def upload(self, numbers: Numbers) -> Tensor:
        """The table on the device."""
        begin, self._used = self._used, self._used + numbers.size
        if self._used > len(self._halves[0]):
            return torch.from_numpy(numbers).to(self._device)
        pinned = self._halves[0][begin : self._used].view(numbers.shape)
        pinned.copy_(torch.from_numpy(numbers))
        return pinned.to(self._device, non_blocking=True)

    def turn(self) -> None:
        """To be called after a batch's tables."""
        self._halves = self._halves[1], self._halves[0]
        self._used = 0
