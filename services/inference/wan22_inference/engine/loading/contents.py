"""What a batch that has been read is made of, in numbers that a decoder takes: listed by who read it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from wan22.pack.layout import Codec
from wan22.pack.planes import FRAME_BYTES
from wan22_inference.engine.loading.frames import Frames, frames_of
from wan22_inference.engine.loading.plan import Batch, Piece, Segment
from wan22_inference.engine.loading.planes import Parts, Row
from wan22_inference.engine.loading.sources import blaming


@dataclass(frozen=True)
class Cast:
    """Words of a tensor that has another dtype than the file."""

    segment: Segment
    word: int
    row: Row
    """Its address is 0: words are merged into memory beside the tensor first."""


@dataclass(frozen=True)
class Contents:
    """Offsets are from the batch's first byte, and from where its first frame is decoded to."""

    pieces: Sequence[Piece]
    """Those that are compressed."""
    counts: Sequence[int]
    """Frames of each."""
    frames: Frames
    parts: Sequence[Parts]
    """What goes straight into tensors, for each size of words."""
    casts: Sequence[Cast]
    plain: Sequence[tuple[Segment, int]]
    """What is stored as it is, and where."""


def list_contents(batch: Batch, stored: memoryview) -> Contents:
    """Takes the batch's bytes, of which nothing is kept. Raises DataLoss where an extent's lengths do not fit it."""
    pieces = [piece for piece in batch.pieces if piece.extent.codec is Codec.PLANES_ZSTD]
    begins = [piece.extent.offset - batch.offset for piece in pieces]
    with blaming(batch.source.name):
        frames, counts = frames_of([piece.extent for piece in pieces], begins, stored)
    rows: defaultdict[int, list[Row]] = defaultdict(list)
    targets: defaultdict[int, list[Tensor]] = defaultdict(list)
    casts: list[Cast] = []
    top = 0
    for piece, begin, count in zip(pieces, begins, counts, strict=True):
        word, step = piece.extent.word, piece.extent.length // piece.extent.word
        for segment in piece.segments:
            first, words, target = segment.begin // word, segment.length // word, segment.slot.bytes
            if target is None:
                casts.append(Cast(segment, word, (begin + first, top + first, step, words, 0)))
            else:
                rows[word].append((begin + first, top + first, step, words, target.data_ptr() + segment.at))
                targets[word].append(target)
        top += count * FRAME_BYTES
    plain = [
        (segment, piece.extent.offset - batch.offset + segment.begin)
        for piece in batch.pieces
        if piece.extent.codec is Codec.NONE
        for segment in piece.segments
    ]
    parts = [Parts(word, np.array(found, np.int64), targets[word]) for word, found in rows.items()]
    return Contents(pieces, counts, frames, parts, casts, plain)
