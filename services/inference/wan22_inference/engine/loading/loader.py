"""Loads files of weights into tensors, by as many threads as the machine has use for."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from wan22.pack.layout import Extent
from wan22_inference.engine.loading import device_loading, host_lane
from wan22_inference.engine.loading.device_loading import DeviceLoading
from wan22_inference.engine.loading.host_lane import HostLane
from wan22_inference.engine.loading.lane_memory import make_lane_memory
from wan22_inference.engine.loading.nvcomp import MakeDecoder, find_decoder
from wan22_inference.engine.loading.plan import Batch, Place, Plan
from wan22_inference.engine.loading.planes import merge_for
from wan22_inference.engine.loading.shared_batches import SharedBatches
from wan22_inference.engine.loading.sources import Source, open_source
from wan22_inference.engine.loading.spent import Clock, Step
from wan22_inference.engine.loading.streams import Stream
from wan22_inference.engine.loading.together import run_together
from wan22_inference.engine.loading.verification import verify

log = logging.getLogger(__name__)
OnBytes = Callable[[int], object]
"""Told how many further bytes of the model's files are in memory; it may raise to end the load."""
MAX_LANES = 16
"""Of the host, or readers for a device; pinned memory is so much each. 16 readers bring 40 GB/s out of a page cache."""


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
    """Seconds by step, of all lanes or readers together."""
    ran: Counter[Step] = field(default_factory=Counter)
    """Of these, on a core."""


class WeightLoader:
    """Loads whole files; use as a context manager. Its lanes, and all memory beside the tensors, serve all its loads.

    On a CUDA device with nvCOMP packed files are decoded there: threads read, one more gives the device its work. Else
    each thread is a lane that reads and decodes. Both give the same bits.
    """

    def __init__(self, on_bytes: OnBytes, *, max_lanes: int = MAX_LANES) -> None:
        self.loaded = Loaded()
        self._on_bytes = on_bytes
        self._noting = threading.Lock()
        self._lanes_count = min(max_lanes, len(os.sched_getaffinity(0)))
        self._lanes: dict[tuple[torch.device, int], HostLane] = {}
        self._on_device: dict[torch.device, DeviceLoading] = {}
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
        """What loads take of a device beside the tensors, until lanes are released."""
        return sum(loading.device_bytes for loading in self._on_device.values())

    def release_lanes(self) -> None:
        """Gives back what only loads need."""
        on_cuda = any(device.type == "cuda" for device in (*self._on_device, *(device for device, _ in self._lanes)))
        self._lanes.clear()
        self._on_device.clear()
        if on_cuda:
            torch.cuda.empty_cache()  # streams of their own own that memory: nobody else could use it

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
        plan = Plan(sources, place, host_lane.BATCH_BYTES if make_decoder is None else device_loading.BATCH_BYTES)
        before = self.loaded.stored_bytes
        batches = SharedBatches(plan.batches(), places)
        if make_decoder is None:
            self._load_by_host(batches, device)
        else:
            self._load_by_device(batches, device, make_decoder)
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

    def _load_by_host(self, batches: SharedBatches, device: torch.device) -> None:
        lanes = [partial(self._use_lane, batches, device, number) for number in range(self._lanes_count)]
        run_together([batches.make, *lanes], batches.close)

    def _load_by_device(self, batches: SharedBatches, device: torch.device, make_decoder: MakeDecoder) -> None:
        if device not in self._on_device:
            self._on_device[device] = DeviceLoading(device, make_decoder, merge_for(device))
        on_read = partial(self._note, verified_all=False)
        self._on_device[device].load(batches, self._lanes_count, self._timed, on_read)

    def _lane(self, device: torch.device, number: int) -> HostLane:
        """The lane of this number, made by its thread: memory is pinned slowly, and the first lane need not wait."""
        if (device, number) not in self._lanes:
            stream = Stream(device)
            with stream:  # its device is then the thread's
                memory = make_lane_memory(host_lane.LANE_BYTES, pinned=device.type == "cuda")
            self._lanes[device, number] = HostLane(memory, stream)
        return self._lanes[device, number]

    def _use_lane(self, batches: SharedBatches, device: torch.device, number: int) -> None:
        """What one thread does; it has a lane only if there is a batch for it."""
        with self._timed() as clock:
            lane = None
            for batch in batches:
                clock.lap(Step.TAKING)
                if lane is None:
                    lane = self._lane(device, number)
                    lane.stream.follow(batches.places)
                    lane.clock = clock
                    clock.lap(Step.MAKING)
                self._note(batch, lane.load(batch), verified_all=True)
            clock.lap(Step.TAKING)

    @contextmanager
    def _timed(self) -> Iterator[Clock]:
        """A clock for one thread."""
        clock = Clock()
        yield clock
        with self._noting:
            self.loaded.spent.update(clock.spent)
            self.loaded.ran.update(clock.ran)

    def _note(self, batch: Batch, direct_bytes: int, *, verified_all: bool) -> None:
        with self._noting:
            self.loaded.direct_bytes += direct_bytes
            self.loaded.stored_bytes += batch.stored_bytes
            if not verified_all and not direct_bytes:
                self._unverified += [(batch.source, piece.extent) for piece in batch.pieces]
            self._on_bytes(batch.stored_bytes)
