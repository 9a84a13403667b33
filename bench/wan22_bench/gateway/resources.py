"""What a process takes of the machine: its memory, and its processors' time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wan22_bench.report import Row

GIBIBYTE = 2**30
_STATE = 2
"""Of the fields of /proc/PID/stat, the one behind the program's name, by proc(5) the third; times are the 14th on."""
_USER_TIME, _SYSTEM_TIME = 13, 14


def resident(pid: int) -> int:
    """Bytes of a process that are in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{pid}/status has no VmRSS")


def processor_seconds(pid: int) -> float:
    """Seconds of a processor that a process has had, its threads' together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[_USER_TIME - _STATE]) + int(fields[_SYSTEM_TIME - _STATE])
    return ticks / os.sysconf("SC_CLK_TCK")


@dataclass
class Usage:
    """Of the machine, while the context lasts."""

    pid: int
    what: str
    most_processor: float
    """What it may take of all processors, a share."""
    most_memory: float
    """GiB."""
    processor: float = 0.0
    memory: float = 0.0

    def __enter__(self) -> None:
        self._began, self._had = time.monotonic(), processor_seconds(self.pid)

    def __exit__(self, *_: object) -> None:
        took = time.monotonic() - self._began
        self.processor = (processor_seconds(self.pid) - self._had) / took / len(os.sched_getaffinity(0))
        self.memory = resident(self.pid) / GIBIBYTE

    def rows(self) -> Iterator[Row]:
        """Both figures."""
        share = f"share of the machine's processors that the gateway takes, {self.what}"
        yield Row(id=None, what=share, value=self.processor, unit="1", goal=self.most_processor)
        yield Row(id=None, what="its memory then", value=self.memory, unit="GiB", goal=self.most_memory)
