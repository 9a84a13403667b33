"""How fast weights come to a device, from the page cache and from the disk, and the host's memory that it takes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from wan22_bench.registry import gpu_goals, peers, stages
from wan22_bench.registry.model_weights import DTYPES, forget, remember
from wan22_bench.report import Row
from wan22_inference.engine.loading.loader import MAX_LANES, Loaded, WeightLoader
from wan22_inference.engine.loading.nvcomp import find_decoder
from wan22_inference.engine.loading.planes import merge_for
from wan22_inference.engine.loading.rooms import Rooms
from wan22_inference.engine.loading.sources import open_source

MEMORY_GOAL = 2_000_000_000
TIMES = 3


def load(path: Path, device: torch.device, max_lanes: int = MAX_LANES) -> tuple[Loaded, dict[str, Tensor]]:
    """Loads a file into new tensors of its own dtypes; also brings the loader up, as every start of a worker does."""
    source = open_source(path, path.name)
    with source.reader:
        tensors = source.header.tensors
    like = {one.name: torch.empty(one.shape, dtype=DTYPES[one.dtype], device="meta") for one in tensors}
    rooms = Rooms(like, device)
    found: dict[str, Tensor] = {}

    def place(name: str, _: tuple[int, ...]) -> Tensor:
        found[name] = rooms.take(name)
        return found[name]

    with WeightLoader(lambda _: None, max_lanes=max_lanes) as loader:
        loader.load([(path.name, path)], device, place)
    return loader.loaded, found


def rows(plain: Path, packed: Path, device: torch.device) -> Iterator[Row]:
    """The rows of P8 and P9, or the same of a CPU, which has no goals; and the host's memory."""
    on_cuda = device.type == "cuda"
    size = plain.stat().st_size
    from_cache = gpu_goals.FROM_CACHE if on_cuda else gpu_goals.FROM_CACHE.replace("the GPU", "memory")
    for path in (plain, packed):
        remember(path)
    ours = _best(packed, device)
    theirs = size / 1e9 / peers.seconds(lambda: peers.load_by_safetensors(plain, device), device, TIMES)
    yield Row(
        id="P8" if on_cuda else None,
        what=f"{from_cache}; peer: safetensors, not packed",
        value=_rate(ours),
        unit="GB/s",
        goal=gpu_goals.P8 if on_cuda else None,
        at_least=True,
        peer=theirs,
    )
    yield from stages.spent(ours)
    if (make_decoder := find_decoder(device)) is not None:
        yield from stages.alone(packed, device, make_decoder, merge_for(device))
    fast = None
    if on_cuda and peers.fastsafetensors_is_here():
        fast = size / 1e9 / peers.seconds(lambda: peers.load_by_fastsafetensors(plain, device), device, TIMES)
    yield Row(
        id=None,
        what=f"{from_cache.replace('a pack', 'plain safetensors')}; peer: fastsafetensors",
        value=_rate(_best(plain, device)),
        unit="GB/s",
        peer=fast,
    )
    yield _from_disk(packed, size, device)
    yield _memory(packed, device)


def _best(path: Path, device: torch.device) -> Loaded:
    """The fastest of some loads."""
    return max((load(path, device)[0] for _ in range(TIMES)), key=_rate)


def _rate(loaded: Loaded) -> float:
    return loaded.bytes / 1e9 / loaded.seconds


def _from_disk(packed: Path, size: int, device: torch.device) -> Row:
    on_cuda = device.type == "cuda"
    name, goal = ("P9", gpu_goals.P9) if on_cuda else (None, None)
    what = gpu_goals.FROM_DISK if on_cuda else gpu_goals.FROM_DISK.replace("the GPU", "memory")
    stored = packed.stat().st_size
    try:
        disk = min(peers.seconds(lambda: _cold(packed), device) for _ in range(TIMES))
    except OSError as error:
        what = f"{what}: no direct reads here ({error.strerror})"
        return Row(id=name, what=what, value=None, unit="1", goal=goal, at_least=True)
    best = 0.0
    for _ in range(TIMES):
        forget(packed)
        loaded, found = load(packed, device)
        best = max(best, loaded.bytes / 1e9 / loaded.seconds)
        del found
    what = f"{what} ({best:.2f} GB/s; {stored / 1e9 / disk:.2f} GB/s over {stored / size:.3f})"
    return Row(id=name, what=what, value=best * 1e9 * disk / size, unit="1", goal=goal, at_least=True)


def _cold(packed: Path) -> None:
    forget(packed)
    peers.read_directly(packed, MAX_LANES)


def _memory(packed: Path, device: torch.device) -> Row:
    """Measured in a process of its own, which has nothing else in its memory."""
    command = [sys.executable, "-m", "wan22_bench.registry.loading", str(packed), str(device)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    beyond = json.loads(result.stdout)
    what = "peak host memory of a load, what lanes read into counted; not the tensors, where they are in it"
    return Row(id=None, what=what, value=beyond, unit="bytes", goal=MEMORY_GOAL, peak_bytes=beyond)


def main() -> None:
    """Loads one file and prints by how much the process's memory grew at its peak."""
    path, device = Path(sys.argv[1]), torch.device(sys.argv[2])
    torch.empty(1, device=device)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now on
    before = _resident("VmRSS")
    _, found = load(path, device)
    grown = _resident("VmHWM") - before
    tensors = sum(tensor.nbytes for tensor in found.values()) if device.type == "cpu" else 0
    sys.stdout.write(json.dumps(max(0, grown - tensors)))


def _resident(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {field}")
    return int(found[1]) * 1024


if __name__ == "__main__":
    main()
