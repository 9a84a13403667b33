"""Reads extents as they are stored, copies them to the GPU and decodes them there, one lane a thread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wan22.pack.layout import Codec
from wan22.pack.malformed import MalformedFile
from wan22.pack.reader import check_extent, name_of
from wan22_inference.engine.loading.frames import FrameDecoder, Frames, Numbers, frames_of, join
from wan22_inference.engine.loading.plan import Batch, Piece, Segment
from wan22_inference.engine.loading.planes import Merge, Part
from wan22_inference.engine.loading.sources import Source, blaming
from wan22_inference.engine.loading.streams import Stream

LANE_BYTES = 32 << 20
TABLE_BYTES = 256 << 10
BATCH_BYTES = LANE_BYTES - TABLE_BYTES
"""Some 200 frames, which keep some 100 multiprocessors busy while other lanes copy."""
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
        self._device = device
        self._decoder = decoder
        self._merge = merge
        with stream:
            self._stored = torch.empty(BATCH_BYTES, dtype=torch.uint8, device=device)
            self._top = self._stored[:0]
        self._outcomes: list[tuple[Source, list[Piece], list[int], Tensor]] = []

    def load(self, batch: Batch) -> int:
        """Starts to fill the batch's segments; returns how many bytes came from the disk itself: 0 is unverified.

        Raises DataLoss for damage that shows at once, OSError.
        """
        with self.stream:
            direct = batch.source.reader.read(batch.offset, self._view[: batch.size])
            if direct:
                with blaming(batch.source.name):
                    for piece in batch.pieces:
                        check_extent(piece.extent, self._stored_of(batch, piece))
            stored = self._stored[: batch.size]
            stored.copy_(self._memory[: batch.size], non_blocking=True)
            copied = self.stream.mark()
            self._decode(batch, [piece for piece in batch.pieces if piece.extent.codec is Codec.PLANES_ZSTD])
            for piece in batch.pieces:
                if piece.extent.codec is Codec.NONE:
                    begin = piece.extent.offset - batch.offset
                    for segment in piece.segments:
                        at = begin + segment.begin
                        segment.slot.put(segment.at, stored[at : at + segment.length])
            if copied is not None:
                copied.synchronize()  # the next batch is read to where this one was copied from
        return direct

    def finish(self) -> None:
        """Waits for what is outstanding. Raises DataLoss for extents that did not decode."""
        self.stream.synchronize()
        outcomes, self._outcomes = self._outcomes, []
        for source, pieces, counts, right in outcomes:
            with self.stream:  # not the one that a generation computes on
                wrong = [] if bool(right.all()) else torch.nonzero(~right).flatten().tolist()
            if wrong:
                number = int(np.searchsorted(np.cumsum(counts), wrong[0], side="right"))
                with blaming(source.name):
                    raise MalformedFile(f"{name_of(pieces[number].extent)} has frames that do not decode")

    def _stored_of(self, batch: Batch, piece: Piece) -> memoryview:
        begin = piece.extent.offset - batch.offset
        return self._view[begin : begin + piece.extent.size]

    def _decode(self, batch: Batch, pieces: list[Piece]) -> None:
        if not pieces:
            return
        frames: list[Frames] = []
        parts: defaultdict[int, list[Part]] = defaultdict(list)
        casts: list[tuple[Segment, int]] = []
        top = scratch = 0
        for piece in pieces:
            at = piece.extent.offset - batch.offset
            with blaming(batch.source.name):
                frames.append(frames_of(piece.extent, self._stored_of(batch, piece), at, top))
            for segment in piece.segments:
                if segment.slot.bytes is None:
                    casts.append((segment, scratch))
                    scratch += -(-segment.length // ALIGNED_PART) * ALIGNED_PART
            top += -(-piece.extent.length // piece.extent.word // ALIGNED_PART) * ALIGNED_PART
        if len(self._top) < top:
            self._top = torch.empty(top, dtype=torch.uint8, device=self._device)
        uncast = torch.empty(scratch, dtype=torch.uint8, device=self._device)
        begins = {id(segment): begin for segment, begin in casts}
        tops = [int(part.targets[0]) for part in frames]
        for piece, top in zip(pieces, tops, strict=True):
            parts[piece.extent.word] += _parts(batch, piece, top, uncast, begins)
        right = self._decoder.decode(self._stored, join(frames), self._top, self._table.upload)
        self._outcomes.append((batch.source, pieces, [len(part) for part in frames], right))
        for word, of_word in parts.items():
            self._merge(self._stored, self._top, of_word, word, self._table.upload)
        for segment, begin in casts:
            segment.slot.put(segment.at, uncast[begin : begin + segment.length])
        self._table.turn()


def _parts(batch: Batch, piece: Piece, top: int, uncast: Tensor, begins: dict[int, int]) -> Sequence[Part]:
    extent, parts = piece.extent, []
    at = extent.offset - batch.offset
    for segment in piece.segments:
        first, target = segment.begin // extent.word, segment.slot.bytes
        parts.append(
            Part(
                lower=at + first,
                step=extent.length // extent.word,
                top=top + first,
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
