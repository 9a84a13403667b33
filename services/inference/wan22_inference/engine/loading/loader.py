"""Loads files of weights into tensors, by as many lanes as the machine has use for."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from wan22.pack.layout import Extent
from wan22_inference.engine.loading import device_lane, host_lane
from wan22_inference.engine.loading.device_lane import DeviceLane
from wan22_inference.engine.loading.frames import FrameDecoder
from wan22_inference.engine.loading.host_lane import HostLane
from wan22_inference.engine.loading.lane_memory import make_lane_memory
from wan22_inference.engine.loading.nvcomp import find_decoder
from wan22_inference.engine.loading.plan import Batch, Place, Plan
from wan22_inference.engine.loading.planes import merge_for
from wan22_inference.engine.loading.shared_batches import SharedBatches
from wan22_inference.engine.loading.sources import Source, open_source
from wan22_inference.engine.loading.spent import Clock, Step
from wan22_inference.engine.loading.streams import Stream
from wan22_inference.engine.loading.verification import verify

log = logging.getLogger(__name__)
Lane = DeviceLane | HostLane
MakeDecoder = Callable[[], FrameDecoder]
OnBytes = Callable[[int], object]
"""Told how many further bytes of the model's files are in memory; it may raise to end the load."""
MAX_LANES = 16
"""Pinned memory and a GPU's scratch memory are so much a lane. A thread reads 6 to 10 GB/s out of the page cache for
about half of its time, and PCIe takes 55."""


@dataclass
class Loaded:
    """What a loader has done."""

    stored_bytes: int = 0
    """Of the files."""
    direct_bytes: int = 0
    """Of these, read from the disk itself; the rest came out of the page cache."""
    bytes: int = 0
    """Of the tensors as stored, decoded."""
    seconds: float = 0.0
    spent: Counter[Step] = field(default_factory=Counter)
    """Seconds by step, of all lanes together."""


class WeightLoader:
    """Loads whole files; use as a context manager. Its lanes, and their memory, serve all its loads.

    On a CUDA device with nvCOMP packed files are decoded there, else by a thread a core; both give the same bits.
    """

    def __init__(self, on_bytes: OnBytes, *, max_lanes: int = MAX_LANES) -> None:
        self.loaded = Loaded()
        self._on_bytes = on_bytes
        self._noting = threading.Lock()
        self._lanes_count = min(max_lanes, len(os.sched_getaffinity(0)))
        self._lanes: dict[tuple[torch.device, bool, int], Lane] = {}
        self._unverified: list[tuple[Source, Extent]] = []
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release_lanes()
        self._open.close()

    @property
    def scratch_bytes(self) -> int:
        """What lanes take of a device beside the tensors, at most, until they are released."""
        if any(isinstance(lane, DeviceLane) for lane in self._lanes.values()):
            return self._lanes_count * device_lane.DEVICE_BYTES
        return 0

    def release_lanes(self) -> None:
        """Gives back what only loads need."""
        on_cuda = any(device.type == "cuda" for device, _, _ in self._lanes)
        self._lanes.clear()
        if on_cuda:
            torch.cuda.empty_cache()  # the lanes' streams own their memory: nobody else could use it

    def load(self, files: Sequence[tuple[str, Path]], device: torch.device, place: Place) -> None:
        """Fills the tensors that `place` gives for what the files (path in the model, local file) hold, in their order.

        The tensors are on the device, and whole when this returns. Raises DataLoss for a file that is damaged or not
        what its name says, OSError, and what `place` and `on_bytes` raise.
        """
        started = time.monotonic()
        sources = [self._open_source(name, path) for name, path in files]
        make_decoder = find_decoder(device) if all(source.packed for source in sources) else None
        places = Stream(device)
        places.follow_computing()  # memory that a computation gave back may still be in its use
        plan = Plan(sources, place, host_lane.BATCH_BYTES if make_decoder is None else device_lane.BATCH_BYTES)
        before = self.loaded.stored_bytes
        self._run(SharedBatches(plan.batches(), places), device, make_decoder)
        with places:
            for slot in plan.slots:
                slot.finish()
            places.synchronize()
        rest = sum(source.reader.size for source in sources) - (self.loaded.stored_bytes - before)
        self.loaded.stored_bytes += rest
        self._on_bytes(rest)  # headers, tables and padding
        self.loaded.bytes += plan.size
        self.loaded.seconds += time.monotonic() - started

    def verify(self) -> None:
        """Holds against their digests what was decoded without it. Raises DataLoss naming file and extent."""
        unverified, self._unverified = self._unverified, []
        verify(unverified, lambda: self._on_bytes(0))

    def _open_source(self, name: str, path: Path) -> Source:
        source = open_source(path, name)
        self._open.enter_context(source.reader)
        return source

    def _lane(self, device: torch.device, make_decoder: MakeDecoder | None, number: int) -> Lane:
        """The lane of this number, made by its thread: memory is pinned slowly, and the first lane need not wait."""
        key = device, make_decoder is not None, number
        if key not in self._lanes:
            stream = Stream(device)
            size = host_lane.LANE_BYTES if make_decoder is None else device_lane.LANE_BYTES
            with stream:  # its device is then the thread's
                memory = make_lane_memory(size, pinned=device.type == "cuda")
            if make_decoder is None:
                self._lanes[key] = HostLane(memory, stream)
            else:
                self._lanes[key] = DeviceLane(memory, stream, device, make_decoder(), merge_for(device))
        return self._lanes[key]

    def _run(self, batches: SharedBatches, device: torch.device, make_decoder: MakeDecoder | None) -> None:
        def work(number: int) -> None:
            try:
                self._work(batches, lambda: self._lane(device, make_decoder, number))
            except BaseException:
                batches.close()
                raise

        with ThreadPoolExecutor(1 + self._lanes_count, "load") as pool:
            futures = [pool.submit(batches.make)]
            futures += [pool.submit(work, number) for number in range(self._lanes_count)]
        for future in futures:
            future.result()

    def _work(self, batches: SharedBatches, make_lane: Callable[[], Lane]) -> None:
        """What one thread does; it has a lane only if there is a batch for it."""
        clock, lane = Clock(), None
        for batch in batches:
            clock.lap(Step.TAKING)
            if lane is None:
                lane = make_lane()
                lane.stream.follow(batches.places)
                lane.clock = clock
                clock.lap(Step.MAKING)
            self._note(batch, lane.load(batch), lane)
        clock.lap(Step.TAKING)
        if lane is not None:
            lane.finish()
            with self._noting:
                self.loaded.spent.update(clock.spent)

    def _note(self, batch: Batch, direct_bytes: int, lane: Lane) -> None:
        with self._noting:
            self.loaded.direct_bytes += direct_bytes
            self.loaded.stored_bytes += batch.stored_bytes
            if isinstance(lane, DeviceLane) and not direct_bytes:
                self._unverified += [(batch.source, piece.extent) for piece in batch.pieces]
            self._on_bytes(batch.stored_bytes)
