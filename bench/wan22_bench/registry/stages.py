"""What bounds a load: where its lanes' time went, and how fast each stage of decoding on a device is alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from wan22_bench.registry import peers
from wan22_bench.registry.model_weights import DTYPES
from wan22_bench.report import Row
from wan22_inference.engine.loading.device_lane import BATCH_BYTES, LANE_BYTES, DeviceLane
from wan22_inference.engine.loading.frames import FrameDecoder, Frames, Numbers, Upload
from wan22_inference.engine.loading.lane_memory import make_lane_memory
from wan22_inference.engine.loading.loader import MAX_LANES, Loaded, MakeDecoder
from wan22_inference.engine.loading.plan import Batch, Plan
from wan22_inference.engine.loading.planes import Merge, Part
from wan22_inference.engine.loading.sources import Source, open_source
from wan22_inference.engine.loading.spent import ON_DEVICE, Step
from wan22_inference.engine.loading.streams import Stream

TIMES = 3
Result = TypeVar("Result")


def lanes_count() -> int:
    """How many lanes a loader has here."""
    return min(MAX_LANES, len(os.sched_getaffinity(0)))


def spent(loaded: Loaded) -> Iterator[Row]:
    """A row a step that a load's lanes spent time on, in seconds a lane: those of its thread add up to the load's.

    First the share that the page cache did not have after all.
    """
    share = loaded.direct_bytes / loaded.stored_bytes
    yield Row(id=None, what="the share of that load's bytes that the page cache had not", value=share, unit="1")
    lanes = lanes_count()
    for step in Step:
        if step in loaded.spent:
            by = "a stream, beside its lane's thread" if step in ON_DEVICE else "a lane's thread"
            what = f"of that load's {loaded.seconds:.3f} s, by {lanes} lanes: {step}, {by}"
            yield Row(id=None, what=what, value=loaded.spent[step] / lanes, unit="s")


def alone(packed: Path, device: torch.device, make_decoder: MakeDecoder, merge: Merge) -> Iterator[Row]:
    """A row a stage in bytes of the model a second, as if it were the only one; P8 is at most the least of them."""
    lanes = [_Bench(device, make_decoder, merge) for _ in range(lanes_count())]
    source = open_source(packed, packed.name)
    with source.reader:
        places = _places(source, device)
        plan = Plan([source], lambda name, _: places[name], BATCH_BYTES)
        batches = list(plan.batches())
        size = sum(piece.extent.length for batch in batches for piece in batch.pieces)

        def rate(work: Callable[[], object], part: float = 1.0) -> float:
            return part * size / 1e9 / peers.seconds(work, device, TIMES)

        def row(what: str, value: float) -> Row:
            return Row(id=None, what=f"{what} alone, bytes of the model", value=value, unit="GB/s")

        some = f"{len(lanes)} lanes"
        yield row("taking memory for the tensors of the device", rate(lambda: _places(source, device)))
        yield row(f"reading out of the page cache by {some}", rate(lambda: _share(lanes, batches, _Bench.read)))
        first, stored = batches[0].size, sum(batch.size for batch in batches)
        copies = stored // first
        yield row("copying to the device", rate(lambda: lanes[0].copy(first, copies), copies * first / stored))
        without = rate(lambda: _share(lanes, batches, _Bench.load_undecoded))
        yield row(f"reading, copying and the host's work by {some}, nothing decoded,", without)
        for lane in lanes:
            lane.lane.load(batches[0])
        decoded = sum(piece.extent.length for piece in batches[0].pieces)
        rounds = max(1, size // decoded // len(lanes))

        def repeat(use: Sequence[_Bench], work: Callable[[_Bench], object], batches_each: int = 1) -> float:
            times = max(1, rounds * len(lanes) // len(use) // batches_each)
            part = times * len(use) * batches_each * decoded / size
            return rate(lambda: [work(lane) for _ in range(times) for lane in use], part)

        yield row("decoding by one lane", repeat(lanes[:1], _Bench.decode_again))
        yield row(f"decoding by {some}", repeat(lanes, _Bench.decode_again))
        together = lanes[0].run(lambda: _together([lane.decoder for lane in lanes], make_decoder()))
        of_all = repeat(lanes[:1], lambda lane: lane.run(together), len(lanes))
        yield row(f"decoding the batches of {some} in one call", of_all)
        yield row("merging by one lane", repeat(lanes[:1], _Bench.merge_again))


def _together(repeated: Sequence[_Repeated], decoder: FrameDecoder) -> Callable[[], Tensor]:
    """Decodes what several lanes have decoded in one call, on the current stream as this one."""
    stored = torch.cat([one.stored for one in repeated])
    target = torch.cat([one.target for one in repeated])
    frames = [one.frames for one in repeated]
    shift, further = len(repeated[0].stored), len(repeated[0].target)
    joined = Frames(
        np.concatenate([part.begins + number * shift for number, part in enumerate(frames)]),
        np.concatenate([part.sizes for part in frames]),
        np.concatenate([part.targets + number * further for number, part in enumerate(frames)]),
        np.concatenate([part.lengths for part in frames]),
    )
    upload = _once(lambda numbers: torch.from_numpy(numbers).to(stored.device))
    return lambda: decoder.decode(stored, joined, target, upload)


def _places(source: Source, device: torch.device) -> Mapping[str, Tensor]:
    """New tensors on a new stream, as a load takes them: what another stream has had is not used again for it."""
    with Stream(device):
        return {
            tensor.name: torch.empty(tensor.shape, dtype=DTYPES[tensor.dtype], device=device)
            for tensor in source.header.tensors
        }


def _share(lanes: Sequence[_Bench], batches: Sequence[Batch], work: Callable[[_Bench, Batch], object]) -> None:
    """Each batch to one lane, a thread each."""
    left, lock = iter(batches), threading.Lock()

    def use(lane: _Bench) -> None:
        while True:
            with lock:
                batch = next(left, None)
            if batch is None:
                return
            work(lane, batch)

    with ThreadPoolExecutor(len(lanes)) as pool:
        for future in [pool.submit(use, lane) for lane in lanes]:
            future.result()


class _Bench:
    """A lane whose decoding and merging can be left out, or done again without the rest."""

    def __init__(self, device: torch.device, make_decoder: MakeDecoder, merge: Merge) -> None:
        self._memory = make_lane_memory(LANE_BYTES, pinned=device.type == "cuda")
        self._view = self._memory[:BATCH_BYTES].numpy().data
        self._stream = Stream(device)
        self.decoder, self._merge = _Repeated(make_decoder()), merge
        self._merges: list[Callable[[], object]] = []
        self._stored = torch.empty(BATCH_BYTES, dtype=torch.uint8, device=device)
        self.lane = DeviceLane(self._memory, self._stream, device, self.decoder, self._keep_merge)
        nothing = _Nothing(device)
        self._undecoded = DeviceLane(self._memory, self._stream, device, nothing, nothing.merge)

    def read(self, batch: Batch) -> None:
        """Into pinned memory."""
        batch.source.reader.read(batch.offset, self._view[: batch.size])

    def copy(self, size: int, times: int) -> None:
        """From there to the device."""
        with self._stream:
            for _ in range(times):
                self._stored[:size].copy_(self._memory[:size], non_blocking=True)

    def load_undecoded(self, batch: Batch) -> None:
        """All but what the device has to do."""
        self._undecoded.load(batch)

    def decode_again(self) -> None:
        """The frames of the batch that was loaded."""
        self.run(self.decoder.repeat)

    def run(self, work: Callable[[], Result]) -> Result:
        """On the lane's stream."""
        with self._stream:
            return work()

    def merge_again(self) -> None:
        """The words of the batch that was loaded."""
        with self._stream:
            for merge in self._merges:
                merge()

    def _keep_merge(self, stored: Tensor, top: Tensor, parts: Sequence[Part], word: int, upload: Upload) -> None:
        kept = _once(upload)
        self._merges.append(lambda: self._merge(stored, top, parts, word, kept))
        self._merge(stored, top, parts, word, kept)


class _Repeated:
    """A decoder that can do its last call again."""

    stored: Tensor
    frames: Frames
    target: Tensor

    def __init__(self, decoder: FrameDecoder) -> None:
        self._decoder = decoder
        self._upload: Upload = torch.from_numpy

    def decode(self, stored: Tensor, frames: Frames, target: Tensor, upload: Upload) -> Tensor:
        """See FrameDecoder."""
        self.stored, self.frames, self.target, self._upload = stored, frames, target, _once(upload)
        return self.repeat()

    def repeat(self) -> Tensor:
        """The last call."""
        return self._decoder.decode(self.stored, self.frames, self.target, self._upload)


class _Nothing:
    """Decodes and merges nothing, but brings the tables to the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def decode(self, stored: Tensor, frames: Frames, target: Tensor, upload: Upload) -> Tensor:
        """See FrameDecoder."""
        upload(frames.addresses(stored.data_ptr(), target.data_ptr()))
        return torch.ones(len(frames), dtype=torch.bool, device=self._device)

    def merge(self, stored: Tensor, top: Tensor, parts: Sequence[Part], word: int, upload: Upload) -> None:
        """See Merge."""


def _once(upload: Upload) -> Upload:
    """Brings a table to the device at the first call, and gives that one again."""
    found: list[Tensor] = []

    def kept(numbers: Numbers) -> Tensor:
        if not found:
            found.append(upload(numbers))
        return found[0]

    return kept
