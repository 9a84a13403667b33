"""Steps down when the device's memory does not suffice: each phase is tried again with more economy."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from wan22.economy import Economy
from wan22.memory_model import tighten
from wan22_inference.engine.placement import Placement

log = logging.getLogger(__name__)
T = TypeVar("T")


class OutOfSteps(Exception):  # no error yet: the caller knows what was asked for
    """The last step did not suffice either; the text is the allocator's."""


@dataclass
class Ladder:
    """One generation's way down. What it has taken holds for the rest of the generation."""

    economy: Economy
    placement: Placement
    device: torch.device
    tell: Callable[[Economy], None]
    """Hears of each step that changes bits."""
    shares_start: bool
    """Whether forwards share their start, which takes memory: given up before all else, since that changes no bits."""

    def run(self, phase: str, work: Callable[[], T]) -> T:
        """The result of `work`, tried again after each step. Raises OutOfSteps."""
        while True:
            try:
                return work()
            except torch.OutOfMemoryError as error:
                what = str(error)
            self._free()  # after the except clause, whose error holds what was computed
            self._step(phase, what)

    def _step(self, phase: str, what: str) -> None:
        if phase == "denoise" and self.shares_start:
            log.warning("Out of memory (phase %s): trying again with nothing shared by forwards. (%s)", phase, what)
            self.shares_start = False
            return
        step = tighten(self.economy, phase)
        if step is not None:
            taken = step.entries().items() - self.economy.entries().items()
            log.warning("Out of memory (phase %s): trying again with %s. (%s)", phase, dict(taken), what)
            self.economy = step
            self.tell(step)
        elif phase == "denoise" and not self.placement.streamed:
            log.warning("Out of memory (phase %s): trying again with blocks in host memory. (%s)", phase, what)
            self.placement.stream()
        else:
            raise OutOfSteps(what)

    def _free(self) -> None:
        self.placement.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
