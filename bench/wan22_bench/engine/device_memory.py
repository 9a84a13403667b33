"""The most of a device's memory that was in use, by whoever: contexts and libraries too."""

from __future__ import annotations

import importlib.util
import threading
from types import TracebackType
from typing import Self

import torch

INTERVAL_SECONDS = 0.005
"""Between readings: torch's allocator keeps what it has taken, so that no peak of it passes between two."""


class DeviceMemory:
    """Reads NVML's count beside the work; use as a context manager, then ask for `peak`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="device-memory", daemon=True)
        self.peak: int | None = None
        """Bytes; None on a CPU. What other processes use is in it: measure where there are none."""

    def __enter__(self) -> Self:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()
            self._read()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self._read()
            self._over.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(INTERVAL_SECONDS):
            self._read()

    def _read(self) -> None:
        self.peak = max(self.peak or 0, used_bytes(self._device))


def used_bytes(device: torch.device) -> int:
    """What is in use of a CUDA device, by NVML; by the driver, which counts the same, where its package is missing."""
    if importlib.util.find_spec("pynvml") is None:
        free, total = torch.cuda.mem_get_info(device)
        return total - free
    return int(torch.cuda.device_memory_used(device))
