"""The device's side of a load: one thread gives it all its work, as many batches at a time as have gathered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch

from wan22_inference.engine.loading.buffers import Buffer, BufferRing
from wan22_inference.engine.loading.group import Group
from wan22_inference.engine.loading.group_decoder import GroupDecoder, Outcome
from wan22_inference.engine.loading.lane_memory import make_lane_memory
from wan22_inference.engine.loading.nvcomp import MakeDecoder
from wan22_inference.engine.loading.planes import Merge
from wan22_inference.engine.loading.reader import OnRead, read_batches
from wan22_inference.engine.loading.shared_batches import SharedBatches
from wan22_inference.engine.loading.spent import Clock, Step
from wan22_inference.engine.loading.streams import Mark, Stream
from wan22_inference.engine.loading.together import run_together

BATCH_BYTES = 32 << 20
"""Six extents of bfloat16 weights, which a thread reads in 8 ms: the device's own memory takes as long to make. Each
batch costs all threads turns at Python's lock and the driver's; half as large ones took a fifth longer on an H200."""
SPARE_BUFFERS = 8
"""Beside one a reader: those that are copied, or wait for it."""
DECODERS = 2
"""While one is between two groups, the other keeps the device busy."""
POLL_SECONDS = 0.0003
"""How often a decoder is asked whether it is free, while nothing comes to be copied; a group takes 7 ms."""


def make_buffer(device: torch.device) -> Buffer:
    """Memory of the host that a batch is read to, pinned for a CUDA device."""
    with Stream(device):  # its device is then the thread's
        return Buffer(make_lane_memory(BATCH_BYTES, pinned=device.type == "cuda"))


class DeviceLoading:
    """Memory and streams of a device that serve all loads to it.

    While decoders work on their groups, what readers bring is copied to one more, which the next decoder that is
    through takes: so groups are as large as what came meanwhile, and the first is small. A frame takes a decoder
    some milliseconds however many there are, so that a device is fast with thousands at a time only.
    """

    def __init__(self, device: torch.device, make_decoder: MakeDecoder, merge: Merge) -> None:
        self._device = device
        self._make_decoder = make_decoder
        self._merge = merge
        self._buffers: list[Buffer] = []
        self._copying = Stream(device)
        self._groups: list[Group] = []
        self._decoders: list[GroupDecoder] = []
        self._copies: list[tuple[Mark, Mark]] = []

    @property
    def device_bytes(self) -> int:
        """What it takes of the device beside the tensors."""
        groups = sum(group.device_bytes for group in self._groups)
        return groups + sum(decoder.device_bytes for decoder in self._decoders)

    def load(
        self, batches: SharedBatches, readers: int, timed: Callable[[], AbstractContextManager[Clock]], on_read: OnRead
    ) -> None:
        """Makes and reads batches, by so many threads that read, and returns when all is in the tensors.

        `timed` gives each thread its clock. Raises what making and reading them raise, and what `run` raises.
        """
        ring = self.ring(readers)

        def close() -> None:
            batches.close()
            ring.close()

        def read() -> None:
            with timed() as clock:
                read_batches(batches, ring, clock, on_read)

        def use_device() -> None:
            with timed() as clock:
                self.run(ring, batches.places, clock)

        run_together([batches.make, use_device, *[read] * readers], close)

    def ring(self, readers: int) -> BufferRing:
        """Buffers for a load by so many readers, who make them: memory is pinned slowly."""
        return BufferRing(self._buffers, lambda: make_buffer(self._device), readers + SPARE_BUFFERS, readers)

    def run(self, ring: BufferRing, places: Stream, clock: Clock) -> None:
        """What the device's thread does, until all that readers bring is in the tensors, or the ring is closed.

        `places` is the stream of the tensors' memory. Raises DataLoss for extents that did not decode.
        """
        outcomes: list[Outcome] = []
        self._copies = []
        try:
            self._reserve()
            clock.lap(Step.RESERVING)
            while ring.next(None) is not None:
                group = self._groups[len(outcomes) % len(self._groups)]
                decoder = self._decoders[len(outcomes) % len(self._decoders)]
                self._gather(group, ring, decoder, clock)
                if not ring.is_closed:
                    outcomes.append(decoder.decode(group, self._copying, places))
                clock.lap(Step.LAUNCHING)
        finally:
            self._synchronize()  # also after an error: memory is used again
        if not ring.is_closed:
            self._finish(outcomes, clock)

    def _reserve(self) -> None:
        """All memory at once, while readers begin: a device that gives memory does nothing else meanwhile."""
        if self._decoders:
            return
        with self._copying:
            self._groups = [Group(self._device) for _ in range(DECODERS + 1)]
        self._decoders = [GroupDecoder(self._device, self._make_decoder(), self._merge) for _ in range(DECODERS)]

    def _gather(self, group: Group, ring: BufferRing, decoder: GroupDecoder, clock: Clock) -> None:
        """Copies to the group what comes: until its decoder is free, or all there is room for, or all there is."""
        group.begin(self._copying)
        while True:
            clock.lap(Step.GATHERING)
            with self._copying:
                while (filled := ring.next(0)) is not None and group.has_room_for(filled):
                    begun = self._copying.mark()
                    group.add(filled)
                    copied = self._copying.mark(awaited=True)
                    self._copies.append((begun, copied))
                    ring.give_back(copied)
            clock.lap(Step.GIVING)
            if filled is not None or ring.is_at_end or decoder.is_free():
                if filled is not None and not group.members:
                    raise RuntimeError(f"{filled} is larger than an empty group, where a plan has to cut it")
                return
            ring.next(POLL_SECONDS)

    def _finish(self, outcomes: Sequence[Outcome], clock: Clock) -> None:
        for begun, copied in self._copies:
            clock.add(Step.COPYING, copied.seconds_since(begun))
        for outcome in outcomes:
            clock.add(Step.DECODING, outcome.decoded.seconds_since(outcome.begun))
            clock.add(Step.MERGING, outcome.merged.seconds_since(outcome.decoded))
        with self._copying:  # not the stream that a generation computes on
            right = bool(torch.cat([outcome.right for outcome in outcomes]).all()) if outcomes else True
            for outcome in () if right else outcomes:
                outcome.check()
        clock.lap(Step.FINISHING)

    def _synchronize(self) -> None:
        self._copying.synchronize()
        for decoder in self._decoders:
            decoder.synchronize()
