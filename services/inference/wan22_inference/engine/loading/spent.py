"""Where the time of a load goes: what a lane's thread did, and what the device did for it meanwhile."""

from __future__ import annotations

import time
from collections import Counter
from enum import StrEnum


class Step(StrEnum):
    """What a lane's time is spent on; a benchmark's rows are named so."""

    MAKING = "making the lane and its memory"
    TAKING = "waiting for the next batch and the memory of its tensors"
    READING = "reading"
    CHECKING = "digests"
    PREPARING = "tables and launches"
    WAITING = "waiting for the device"
    HOST_DECODING = "decoding on the host"
    PUTTING = "putting what the host decoded into tensors"
    COPYING = "copying"
    DECODING = "decoding"
    MERGING = "merging into tensors"


ON_DEVICE = frozenset({Step.COPYING, Step.DECODING, Step.MERGING})
"""Steps that a lane's stream takes beside its thread, by the device's clock; streams share the device."""


class Clock:
    """Adds up a thread's seconds by step."""

    def __init__(self) -> None:
        self.spent: Counter[Step] = Counter()
        self._at = time.perf_counter()

    def lap(self, step: Step) -> None:
        """All since the last lap was this step."""
        now = time.perf_counter()
        self.spent[step] += now - self._at  # type: ignore[assignment]  # counters of fractions work
        self._at = now

    def add(self, step: Step, seconds: float) -> None:
        """Of the device."""
        self.spent[step] += seconds  # type: ignore[assignment]
