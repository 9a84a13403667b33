"""Reads how busy a GPU is, beside the work."""

from __future__ import annotations

import logging
import threading
import time

import pynvml
import torch

from wan22_inference.renderer import GpuReading

log = logging.getLogger(__name__)
INTERVAL_SECONDS = 2.0
"""Between readings: a gateway asks as often."""


class GpuSensor:
    """NVML's utilization of one CUDA device, read by a thread of its own: a driver that hangs holds up nobody."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._reading: GpuReading | None = None
        self._complaint = ""
        self._over = threading.Event()

    @property
    def reading(self) -> GpuReading | None:
        """The newest; None until there is one, and once the driver says nothing."""
        return self._reading

    def start(self) -> None:
        """Reads every 2 s from now on."""
        threading.Thread(target=self._run, name="gpu-sensor", daemon=True).start()

    def stop(self) -> None:
        """Ends that, without waiting for the driver."""
        self._over.set()

    def read(self) -> GpuReading | None:
        """One reading; None, with a line in the log about each new reason, when there is none."""
        try:
            percent = torch.cuda.utilization(self._device)
        except (RuntimeError, AssertionError, pynvml.NVMLError) as error:  # torch asserts that it was built for CUDA
            self._complain(str(error))
            return None
        if not 0 <= percent <= 100:
            self._complain(f"{percent} %")  # some drivers say 2^32 - 1 for what they do not know
            return None
        self._complaint = ""
        return GpuReading(percent / 100, time.monotonic())

    def _run(self) -> None:
        while not self._over.is_set():
            self._reading = self.read()
            self._over.wait(INTERVAL_SECONDS)

    def _complain(self, why: str) -> None:
        if why != self._complaint:
            log.info("The GPU's utilization is not known: %s", why)
            self._complaint = why
