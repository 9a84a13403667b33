"""Where the time of a load goes: what its threads did, and what the device did for them meanwhile."""

from __future__ import annotations

import time
from collections import Counter
from enum import StrEnum


class Step(StrEnum):
    """What a thread's time, or a stream's, is spent on; a benchmark's rows are named so."""

    MAKING = "making the lane and its memory"
    TAKING = "waiting for the next batch and the memory of its tensors"
    BUFFERING = "waiting for a buffer that has been copied"
    PINNING = "making a buffer"
    READING = "reading"
    CHECKING = "digests"
    LISTING = "tables"
    WAITING = "waiting for the device"
    HOST_DECODING = "decoding on the host"
    PUTTING = "putting what the host decoded into tensors"
    RESERVING = "making the device's memory"
    GATHERING = "waiting for buffers that are filled, or for a decoder"
    GIVING = "giving copies"
    LAUNCHING = "tables and launches"
    FINISHING = "waiting for the device at the end"
    COPYING = "copying"
    DECODING = "decoding"
    MERGING = "merging into tensors"


OF_DEVICE_THREAD = frozenset({Step.RESERVING, Step.GATHERING, Step.GIVING, Step.LAUNCHING, Step.FINISHING})
"""Steps of the one thread that gives a device its work; all others of a host are those of each lane or reader."""
ON_DEVICE = frozenset({Step.COPYING, Step.DECODING, Step.MERGING})
"""Steps that streams take beside that thread, by the device's clock; streams share the device."""


class Clock:
    """Adds up a thread's seconds by step."""

    def __init__(self) -> None:
        """For the thread that makes it."""
        self.spent: Counter[Step] = Counter()
        self.ran: Counter[Step] = Counter()
        """Of these, on a core: else the thread waited, also for Python's lock or the driver's."""
        self._at, self._ran_at = time.perf_counter(), time.thread_time()

    def lap(self, step: Step) -> None:
        """All since the last lap was this step."""
        now, ran = time.perf_counter(), time.thread_time()
        self.spent[step] += now - self._at  # type: ignore[assignment]  # counters of fractions work
        self.ran[step] += ran - self._ran_at  # type: ignore[assignment]
        self._at, self._ran_at = now, ran

    def add(self, step: Step, seconds: float) -> None:
        """Of the device."""
        self.spent[step] += seconds  # type: ignore[assignment]
