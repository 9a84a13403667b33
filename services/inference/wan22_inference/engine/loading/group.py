"""Memory of a device that batches are copied to side by side, to be decoded in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wan22.pack.planes import FRAME_BYTES
from wan22_inference.engine.loading.buffers import Filled
from wan22_inference.engine.loading.contents import Contents
from wan22_inference.engine.loading.frames import Numbers
from wan22_inference.engine.loading.plan import Batch
from wan22_inference.engine.loading.streams import Mark, Stream

GROUP_FRAMES = 1152
"""Of one call, at most: nvCOMP takes 7 ms for 3,000 frames as for 200, so the more, the faster. Memory bounds it: half
a megabyte each, for what is decoded and for nvCOMP's own use."""
GROUP_BYTES = 192 << 20
"""As stored: so many frames of bfloat16 weights."""
TABLE_NUMBERS = 64 << 10
"""Four a frame, and five a tensor's part: 12,000 of these."""


@dataclass(frozen=True)
class Member:
    """A batch of a group, and where it begins there."""

    batch: Batch
    contents: Contents
    at: int
    """Its first byte."""
    frame: int
    """Its first frame."""

    @property
    def top(self) -> int:
        """Where its first frame is decoded to."""
        return self.frame * FRAME_BYTES


class Group:
    """Stored bytes of some batches. Copies to it wait for the decoding of what it had."""

    def __init__(self, device: torch.device) -> None:
        """On the current stream of the device."""
        self.stored = torch.empty(GROUP_BYTES, dtype=torch.uint8, device=device)
        self.members: list[Member] = []
        self._device = device
        self._table = torch.empty(TABLE_NUMBERS, dtype=torch.int64, device=device)
        self._pinned = torch.empty(TABLE_NUMBERS, dtype=torch.int64, pin_memory=device.type == "cuda")
        self._numbers: Numbers = self._pinned.numpy()
        self._uploaded = self._table
        self._size = self._frames = 0
        self._decoded: Mark | None = None
        self._uploaded_at: Mark | None = None

    @property
    def device_bytes(self) -> int:
        """What it takes of the device."""
        return self.stored.nbytes + self._table.nbytes

    def begin(self, copying: Stream) -> None:
        """Makes room for other batches, which come by this stream."""
        if self._decoded is not None:
            copying.wait_for(self._decoded)
        self.members = []
        self._size = self._frames = 0

    def end(self, decoded: Mark) -> None:
        """With the mark, all that it has has been decoded."""
        self._decoded = decoded

    def has_room_for(self, filled: Filled) -> bool:
        """Whether it takes this batch too; an empty one takes any that a plan makes."""
        frames = self._frames + len(filled.contents.frames)
        return self._size + filled.batch.size <= GROUP_BYTES and frames <= GROUP_FRAMES

    def add(self, filled: Filled) -> None:
        """Starts to copy a batch to it, on the current stream."""
        size = filled.batch.size
        self.stored[self._size : self._size + size].copy_(filled.buffer.memory[:size], non_blocking=True)
        self.members.append(Member(filled.batch, filled.contents, self._size, self._frames))
        self._size += size
        self._frames += len(filled.contents.frames)

    def upload(self, tables: Sequence[Numbers], copying: Stream) -> Sequence[Tensor]:
        """The tables of what it has on the device, by one copy behind the batches'.

        On a stream of its own it would wait for all that the device copies by then.
        """
        rows, size = [table.ravel() for table in tables], sum(table.size for table in tables)
        with copying:
            if size <= TABLE_NUMBERS:
                if self._uploaded_at is not None:
                    self._uploaded_at.wait()
                np.concatenate(rows, out=self._numbers[:size])
                self._uploaded = self._table[:size].copy_(self._pinned[:size], non_blocking=True)
                self._uploaded_at = copying.mark(awaited=True)
            else:
                flat = torch.from_numpy(np.concatenate(rows))
                self._uploaded = flat.to(self._device)  # kept, since another stream uses it
        parts = torch.split(self._uploaded, [table.size for table in tables])
        return [part.view(table.shape) for part, table in zip(parts, tables, strict=True)]
