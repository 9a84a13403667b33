"""What bounds a load: where its threads' time went, and how fast each stage of decoding on a device is alone."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from wan22_bench.registry import peers
from wan22_bench.registry.model_weights import DTYPES
from wan22_bench.report import Row
from wan22_inference.engine.loading.buffers import Buffer, Filled
from wan22_inference.engine.loading.contents import list_contents
from wan22_inference.engine.loading.device_loading import (
    BATCH_BYTES,
    DECODERS,
    SPARE_BUFFERS,
    DeviceLoading,
    make_buffer,
)
from wan22_inference.engine.loading.frames import FrameDecoder, Frames
from wan22_inference.engine.loading.group import Group
from wan22_inference.engine.loading.group_decoder import GroupDecoder
from wan22_inference.engine.loading.loader import MAX_LANES, Loaded
from wan22_inference.engine.loading.nvcomp import MakeDecoder
from wan22_inference.engine.loading.plan import Batch, Plan
from wan22_inference.engine.loading.planes import Merge, Parts
from wan22_inference.engine.loading.shared_batches import SharedBatches
from wan22_inference.engine.loading.sources import Source, open_source
from wan22_inference.engine.loading.spent import OF_DEVICE_THREAD, ON_DEVICE, Clock, Step
from wan22_inference.engine.loading.streams import Stream

TIMES = 3


def lanes_count() -> int:
    """How many lanes, or readers, a loader has here."""
    return min(MAX_LANES, len(os.sched_getaffinity(0)))


def spent(loaded: Loaded) -> Iterator[Row]:
    """A row a step that a load spent time on, in seconds of each that took it: those of a thread add up to the load's.

    First the share that the page cache did not have after all.
    """
    share = loaded.direct_bytes / loaded.stored_bytes
    yield Row(id=None, what="the share of that load's bytes that the page cache had not", value=share, unit="1")
    on_device = Step.LAUNCHING in loaded.spent
    for step in Step:
        if step in loaded.spent:
            count, who = _who(step, on_device=on_device)
            what = f"of that load's {loaded.seconds:.3f} s, {who}: {step}"
            yield Row(id=None, what=what, value=loaded.spent[step] / count, unit="s")
            if step in (Step.GIVING, Step.LAUNCHING):  # which never mean to wait
                what = f"{what}, on a core and not waiting for a lock"
                yield Row(id=None, what=what, value=loaded.ran[step], unit="s")


def _who(step: Step, *, on_device: bool) -> tuple[int, str]:
    """How many took a step beside each other, and who they are."""
    if step in OF_DEVICE_THREAD:
        return 1, "of the device's thread"
    if step is Step.COPYING:
        return 1, "of the stream that copies"
    if step in ON_DEVICE:
        return DECODERS, f"of a stream of {DECODERS} that decode"
    return lanes_count(), f"of a thread of {lanes_count()} {'that read' if on_device else 'lanes'}"


def alone(packed: Path, device: torch.device, make_decoder: MakeDecoder, merge: Merge) -> Iterator[Row]:
    """A row a stage in bytes of the model a second, as if it were the only one; P8 is at most the least of them."""
    source = open_source(packed, packed.name)
    with source.reader:
        places = _places(source, device)
        batches = list(Plan([source], lambda name, _: places[name], BATCH_BYTES).batches())
        size = sum(map(_decoded_bytes, batches))

        def rate(work: Callable[[], object], part: float = 1.0) -> float:
            return part * size / 1e9 / peers.seconds(work, device, TIMES)

        def row(what: str, value: float) -> Row:
            return Row(id=None, what=f"{what} alone, bytes of the model", value=value, unit="GB/s")

        made, seconds = _make_buffers(device)
        what = f"making the {len(made) // 2} buffers of a process's first load alone, by {lanes_count()} readers"
        yield Row(id=None, what=what, value=seconds, unit="s")
        buffers, twice = made[: lanes_count()], made[: 2 * lanes_count()]
        some = f"{len(buffers)} readers"
        yield row("taking memory for the tensors of the device", rate(lambda: _places(source, device)))
        yield row(f"reading out of the page cache by {some}", rate(lambda: _share(buffers, batches)))
        yield row(f"reading out of the page cache by {len(twice)} readers", rate(lambda: _share(twice, batches)))
        yield row("copying to the device", rate(lambda: _copy(buffers[0], batches, device)))
        undecoded = DeviceLoading(device, partial(_Nothing, device), _merge_nothing)
        without = rate(lambda: _load(undecoded, batches, device))
        yield row(f"reading, copying and the host's work by {some}, nothing decoded,", without)

        def repeat(works: Sequence[Callable[[], object]], decoded: int) -> float:
            times = max(1, size // decoded // len(works))
            return rate(lambda: [work() for _ in range(times) for work in works], times * len(works) * decoded / size)

        one = _Bench(device, make_decoder, merge, buffers[0], batches[:1])
        yield row("decoding a batch a call", repeat([one.decode], one.size))
        del one
        whole = [_Bench(device, make_decoder, merge, buffers[0], batches) for _ in range(DECODERS)]
        yield row("decoding a whole group a call by one decoder", repeat([whole[0].decode], whole[0].size))
        both = repeat([bench.decode for bench in whole], whole[0].size)
        yield row(f"decoding a whole group a call by {DECODERS} decoders", both)
        yield row("merging a whole group", repeat([whole[0].merge], whole[0].size))


def _decoded_bytes(batch: Batch) -> int:
    return sum(piece.extent.length for piece in batch.pieces)


def _places(source: Source, device: torch.device) -> Mapping[str, Tensor]:
    """New tensors on a new stream, as a load takes them: what another stream has had is not used again for it."""
    with Stream(device):
        return {
            tensor.name: torch.empty(tensor.shape, dtype=DTYPES[tensor.dtype], device=device)
            for tensor in source.header.tensors
        }


def _make_buffers(device: torch.device) -> tuple[Sequence[Buffer], float]:
    """Two loads' buffers, and in how many seconds the second one's were made: torch keeps those of earlier loads."""
    devices = [device] * (lanes_count() + SPARE_BUFFERS)
    with ThreadPoolExecutor(lanes_count()) as pool:
        kept = list(pool.map(make_buffer, devices))
        start = time.perf_counter()
        new = list(pool.map(make_buffer, devices))
        return [*kept, *new], time.perf_counter() - start


def _share(buffers: Sequence[Buffer], batches: Sequence[Batch]) -> None:
    """Reads each batch into one of the buffers, a thread each."""
    left, lock = iter(batches), threading.Lock()

    def use(buffer: Buffer) -> None:
        while True:
            with lock:
                batch = next(left, None)
            if batch is None:
                return
            batch.source.reader.read(batch.offset, buffer.view[: batch.size])

    with ThreadPoolExecutor(len(buffers)) as pool:
        for future in [pool.submit(use, buffer) for buffer in buffers]:
            future.result()


def _copy(buffer: Buffer, batches: Sequence[Batch], device: torch.device) -> None:
    """As many bytes as the batches have, to the device."""
    with Stream(device):
        stored = torch.empty(BATCH_BYTES, dtype=torch.uint8, device=device)
        for batch in batches:
            stored[: batch.size].copy_(buffer.memory[: batch.size], non_blocking=True)


def _load(loading: DeviceLoading, batches: Sequence[Batch], device: torch.device) -> None:
    """As a loader does it."""
    shared = SharedBatches(iter(batches), Stream(device))
    loading.load(shared, lanes_count(), lambda: nullcontext(Clock()), lambda *_: None)


class _Bench:
    """A group, of as many of the batches as it takes, that has been decoded and can be again, or only merged."""

    def __init__(
        self, device: torch.device, make_decoder: MakeDecoder, merge: Merge, buffer: Buffer, batches: Sequence[Batch]
    ) -> None:
        self.size = 0
        """Bytes of the model."""
        self._merge = merge
        self._decodings: list[Callable[[], object]] = []
        self._merges: list[Callable[[], object]] = []
        copying = Stream(device)
        with copying:
            group = Group(device)
            for batch in batches:
                batch.source.reader.read(batch.offset, buffer.view[: batch.size])
                filled = Filled(buffer, batch, list_contents(batch, buffer.view[: batch.size]))
                if not group.has_room_for(filled):
                    break
                group.add(filled)
                self.size += _decoded_bytes(batch)
                copying.synchronize()
        kept = _Kept(make_decoder(), self._decodings)
        decoder = GroupDecoder(device, kept, self._keep_merge)
        decoder.decode(group, copying, copying)
        self._stream = decoder.stream
        self._stream.synchronize()

    def decode(self) -> None:
        """Its frames."""
        self._again(self._decodings)

    def merge(self) -> None:
        """Its words."""
        self._again(self._merges)

    def _again(self, calls: Sequence[Callable[[], object]]) -> None:
        with self._stream:
            for call in calls:
                call()

    def _keep_merge(self, stored: Tensor, top: Tensor, parts: Parts, table: Tensor) -> None:
        self._merges.append(partial(self._merge, stored, top, parts, table))
        self._merges[-1]()


class _Kept:
    """A decoder whose calls can be made again."""

    def __init__(self, decoder: FrameDecoder, calls: list[Callable[[], object]]) -> None:
        self._decoder = decoder
        self._calls = calls

    def reserve(self, count: int) -> int:
        """See FrameDecoder."""
        return self._decoder.reserve(count)

    def decode(self, stored: Tensor, frames: Frames, target: Tensor, table: Tensor) -> Tensor:
        """See FrameDecoder."""
        self._calls.append(partial(self._decoder.decode, stored, frames, target, table))
        return self._decoder.decode(stored, frames, target, table)


class _Nothing:
    """Decodes nothing."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def reserve(self, count: int) -> int:  # noqa: ARG002
        """See FrameDecoder."""
        return 0

    def decode(self, stored: Tensor, frames: Frames, target: Tensor, table: Tensor) -> Tensor:  # noqa: ARG002
        """See FrameDecoder."""
        return torch.ones(len(frames), dtype=torch.bool, device=self._device)


def _merge_nothing(stored: Tensor, top: Tensor, parts: Parts, table: Tensor) -> None:
    """See Merge."""
