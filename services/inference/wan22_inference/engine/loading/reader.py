"""What a thread does that reads for a device: from batches to filled buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from wan22.pack.reader import check_extent
from wan22_inference.engine.loading.buffers import BufferRing, Filled
from wan22_inference.engine.loading.contents import list_contents
from wan22_inference.engine.loading.plan import Batch
from wan22_inference.engine.loading.sources import blaming
from wan22_inference.engine.loading.spent import Clock, Step

OnRead = Callable[[Batch, int], object]
"""Told of a batch, and how many of its bytes came from the disk itself; with 0 it is unverified."""


def read_batches(batches: Iterable[Batch], ring: BufferRing, clock: Clock, on_read: OnRead) -> None:
    """Reads batches until there are no more, or the ring is closed.

    What came from the disk itself is verified; hashing what was in the page cache is slower than all the rest, and
    comes behind. Raises DataLoss for damage, OSError, and what `on_read` raises.
    """
    for batch in batches:
        clock.lap(Step.TAKING)
        buffer = ring.take(clock)
        if buffer is None:
            return
        stored = buffer.view[: batch.size]
        direct = batch.source.reader.read(batch.offset, stored)
        clock.lap(Step.READING)
        if direct:
            with blaming(batch.source.name):
                for piece in batch.pieces:
                    begin = piece.extent.offset - batch.offset
                    check_extent(piece.extent, stored[begin : begin + piece.extent.size])
            clock.lap(Step.CHECKING)
        ring.fill(Filled(buffer, batch, list_contents(batch, stored)))
        clock.lap(Step.LISTING)
        on_read(batch, direct)
    clock.lap(Step.TAKING)
    ring.end()
