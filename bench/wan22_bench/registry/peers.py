"""What others make of the same bytes: zstd alone, safetensors, fastsafetensors, the disk itself."""

from __future__ import annotations

import importlib.util
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import zstandard
from safetensors.torch import load_file

from wan22.pack.hashing import hasher
from wan22.pack.ordered import in_order
from wan22.pack.page_writer import PageWriter
from wan22.pack.writer import WRITES
from wan22_inference.engine.loading.file_reader import READ_BYTES

ZSTD_BYTES = 8 << 20
"""Compressed on their own, as an extent is."""


def seconds(work: Callable[[], object], device: torch.device, times: int = 1) -> float:
    """The least of so many runs, to the end of what they gave the device to do."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - start)
    return min(taken)


def zstd_alone(path: Path) -> int:
    """Compresses a file at zstd's level 1 by a thread a core; returns to how many bytes."""
    with path.open("rb") as file:

        def compress(data: bytes) -> int:
            return len(zstandard.ZstdCompressor(level=1).compress(data))

        pieces = iter(lambda: file.read(ZSTD_BYTES), b"")
        return sum(in_order(compress, pieces, len(os.sched_getaffinity(0))))


def load_by_safetensors(path: Path, device: torch.device) -> None:
    """Loads a file as its library does; on a CPU each tensor is copied, since it maps the file."""
    tensors = load_file(path, device=str(device))
    if device.type == "cpu":
        for name in tensors:
            tensors[name] = tensors[name].clone()


def fastsafetensors_is_here() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("fastsafetensors") is not None


def load_by_fastsafetensors(path: Path, device: torch.device) -> None:
    """Loads a file without GPUDirect Storage, which containers seldom have."""
    package = importlib.import_module("fastsafetensors")
    loader = package.SafeTensorsFileLoader(package.SingleGroup(), str(device), nogds=True)
    loader.add_filenames({0: [str(path)]})
    buffers = loader.copy_files_to_device()
    for name in loader.get_keys():
        buffers.get_tensor(name)
    torch.cuda.synchronize(device)
    buffers.close()
    loader.close()


def write_directly(path: Path, size: int) -> None:
    """Writes `size` bytes of noise as a packer writes, so many extents at a time."""
    with mmap.mmap(-1, ZSTD_BYTES) as pages, memoryview(pages) as view:
        view[:] = os.urandom(len(view))
        with PageWriter(path) as out, ThreadPoolExecutor(WRITES) as pool:
            for future in [
                pool.submit(out.write, offset, view, min(len(view), size - offset))
                for offset in range(0, size, len(view))
            ]:
                future.result()


def digest(path: Path) -> None:
    """Makes the digest that a pack has of its source."""
    made = hasher()
    with path.open("rb", buffering=0) as file, mmap.mmap(-1, ZSTD_BYTES) as pages, memoryview(pages) as view:
        while count := file.readinto(view):
            made.update(view[:count])


def read_directly(path: Path, threads: int) -> None:
    """Reads a file past the page cache, and does nothing with it. Raises OSError where the file system has no way."""
    size, lock = path.stat().st_size, threading.Lock()
    offsets = iter(range(0, size, READ_BYTES))

    def shared() -> Iterator[int]:
        while True:
            with lock:
                offset = next(offsets, None)
            if offset is None:
                return
            yield offset

    def read() -> None:
        with mmap.mmap(-1, READ_BYTES) as buffer:
            for offset in shared():
                os.preadv(descriptor, [buffer], offset)

    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for future in [pool.submit(read) for _ in range(threads)]:
                future.result()
    finally:
        os.close(descriptor)
