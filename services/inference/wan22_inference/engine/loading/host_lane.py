"""Reads and decodes extents on the CPU, one lane a thread."""

from __future__ import annotations

import torch
from torch import Tensor

from wan22.pack.layout import ALIGNMENT, EXTENT_BYTES, Codec
from wan22.pack.reader import check_extent, decode_extent
from wan22_inference.engine.loading.plan import Batch
from wan22_inference.engine.loading.sources import blaming
from wan22_inference.engine.loading.spent import Clock, Step
from wan22_inference.engine.loading.streams import Stream

STORED_BYTES = EXTENT_BYTES + 2 * ALIGNMENT
"""An extent as stored, at any offset, in whole pages."""
LANE_BYTES = 2 * STORED_BYTES
"""Beside it, the extent as decoded: a GPU copies from pinned memory only."""
BATCH_BYTES = 1
"""An extent a batch: lanes then share out even a small file."""


class HostLane:
    """Verifies what it reads before it decodes it."""

    def __init__(self, memory: Tensor, stream: Stream) -> None:
        self._stored, self._decoded = memory[:STORED_BYTES], memory[STORED_BYTES:]
        self._view = self._stored.numpy().data
        self.stream = stream
        self.clock = Clock()

    def load(self, batch: Batch) -> int:
        """Fills the batch's segments; returns how many bytes came from the disk itself.

        Raises DataLoss for damage, OSError.
        """
        with self.stream:
            direct = batch.source.reader.read(batch.offset, self._view[: batch.size])
            self.clock.lap(Step.READING)
            for piece in batch.pieces:
                extent = piece.extent
                begin = extent.offset - batch.offset
                stored = self._view[begin : begin + extent.size]
                with blaming(batch.source.name):
                    if batch.source.packed:
                        check_extent(extent, stored)
                    self.clock.lap(Step.CHECKING)
                    source = decode_extent(extent, stored)
                    self.clock.lap(Step.HOST_DECODING)
                data = self._stored[begin : begin + extent.size]
                if extent.codec is not Codec.NONE:
                    data = torch.frombuffer(source, dtype=torch.uint8)
                    if self._stored.is_pinned():
                        data = self._decoded[: extent.length].copy_(data)
                for segment in piece.segments:
                    segment.slot.put(segment.at, data[segment.begin : segment.begin + segment.length])
                self.clock.lap(Step.PUTTING)
            self.stream.synchronize()
            self.clock.lap(Step.WAITING)
        return direct
