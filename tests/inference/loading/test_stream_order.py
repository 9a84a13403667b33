"""The device's work of a load, in any order that its streams allow: by a device that works when somebody waits."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from wan22.pack.writer import pack_file
from wan22_inference.engine.loading import device_loading, group, group_decoder
from wan22_inference.engine.loading import loader as loaders
from wan22_inference.engine.loading.device_loading import DeviceLoading
from wan22_inference.engine.loading.frames import Frames, PlainDecoder
from wan22_inference.engine.loading.loader import WeightLoader
from wan22_inference.engine.loading.planes import Parts, merge_plainly

CPU = torch.device("cpu")
BLOCKS = {f"block{n}": torch.randn(150_000 + n).to(torch.bfloat16) for n in range(24)}
KIB = 1024


class LazyDevice:
    """Does what its streams have when somebody waits, one thing after the other, by chance among those that may be."""

    def __init__(self, seed: int) -> None:
        self.lock = threading.RLock()
        self.streams: list[LazyStream] = []
        self.current = threading.local()
        self._chance = random.Random(seed)

    def advance(self) -> None:
        """Does one thing, if there is one."""
        with self.lock:
            ready = [stream for stream in self.streams if stream.is_ready()]
            if ready:
                self._chance.choice(ready).advance()


class LazyMark:
    """Stands for Mark."""

    def __init__(self, stream: LazyStream) -> None:
        self._stream = stream
        self._at = stream.given

    def is_passed(self) -> bool:
        self._stream.device.advance()
        return self.is_done()

    def is_done(self) -> bool:
        return self._stream.done >= self._at

    def wait(self) -> None:
        while not self.is_done():
            self._stream.device.advance()

    def seconds_since(self, _: Self) -> float:
        return 0.0


class LazyStream:
    """Stands for Stream."""

    def __init__(self, device: LazyDevice) -> None:
        self.device = device
        self.given = self.done = 0
        self._work: list[Callable[[], object] | LazyMark] = []
        with device.lock:
            device.streams.append(self)

    def __enter__(self) -> Self:
        self.device.current.stream = self
        return self

    def __exit__(self, *_: object) -> None:
        self.device.current.stream = None

    def give(self, work: Callable[[], object] | LazyMark) -> None:
        with self.device.lock:
            self._work.append(work)
            self.given += 1

    def is_ready(self) -> bool:
        work = self._work[0] if self._work else None
        return work is not None and (not isinstance(work, LazyMark) or work.is_done())

    def advance(self) -> None:
        work = self._work.pop(0)
        try:
            if not isinstance(work, LazyMark):
                work()
        finally:
            self.done += 1

    def mark(self, *, awaited: bool = False) -> LazyMark:
        return LazyMark(self)

    def wait_for(self, mark: LazyMark) -> None:
        self.give(mark)

    def follow(self, other: LazyStream) -> None:
        self.give(other.mark())

    def follow_computing(self) -> None:
        pass

    def synchronize(self) -> None:
        self.mark().wait()


class Copies(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Gives copies that do not block to the current stream."""

    def __init__(self, device: LazyDevice) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._device = device

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is torch.ops.aten.copy_.default and len(args) == 3 and args[2]:
            target, source, _ = args
            self._device.current.stream.give(lambda: target.copy_(source))
            return target
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("together", [1, 3])
def test_in_any_order_that_streams_allow_all_comes_out_right(
    seed: int, together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(BLOCKS, tmp_path / "t.safetensors")
    monkeypatch.setattr("wan22.pack.writer.EXTENT_BYTES", 256 * KIB)
    path = tmp_path / "t.safetensors.pack"
    pack_file(tmp_path / "t.safetensors", path, lambda _: None)
    device, run = LazyDevice(seed), DeviceLoading.run

    class LazyDecoder(PlainDecoder):
        def decode(self, stored: Tensor, frames: Frames, target: Tensor, table: Tensor) -> Tensor:
            right, decode = torch.zeros(len(frames), dtype=torch.bool), super().decode

            def work() -> None:
                assert table.tolist() == frames.addresses(stored, target).tolist()
                right[:] = decode(stored, frames, target, table)

            device.current.stream.give(work)
            return right

    def merge(stored: Tensor, top: Tensor, parts: Parts, table: Tensor) -> None:
        def work() -> None:
            assert table.tolist() == parts.addresses(stored, top).tolist()
            merge_plainly(stored, top, parts, table)

        device.current.stream.give(work)

    def run_lazily(*args: Any) -> None:
        with Copies(device):
            run(*args)

    monkeypatch.setattr(DeviceLoading, "run", run_lazily)
    for module in (device_loading, group_decoder, loaders):
        monkeypatch.setattr(module, "Stream", lambda _: LazyStream(device))
    monkeypatch.setattr(device_loading, "SPARE_BUFFERS", 2)
    monkeypatch.setattr(device_loading, "BATCH_BYTES", 256 * KIB)
    monkeypatch.setattr(group, "GROUP_BYTES", together * 256 * KIB)
    monkeypatch.setattr(loaders, "find_decoder", lambda _: LazyDecoder)
    monkeypatch.setattr(loaders, "merge_for", lambda _: merge)
    found = {name: torch.zeros_like(tensor) for name, tensor in BLOCKS.items()}
    with WeightLoader(lambda _: None) as loader:
        for _ in range(2):
            for tensor in found.values():
                tensor.zero_()
            loader.load([(path.name, path)], CPU, lambda name, _: found[name])
            for name, tensor in BLOCKS.items():
                assert torch.equal(found[name], tensor), name
