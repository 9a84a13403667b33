"""Shared snapshots: threads that take whatever reads are waiting and have them made of one state of the store."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from wan22_gateway.store.asked import Asked

GROUP_LIMIT = 16
"""Most reads that share one snapshot: bounds how long the last of them waits for the others."""


class Read(Asked):
    """A function that waits for its snapshot, and what came of it."""


class GroupReader:
    """Hands groups of reads to `make`, in so many threads of its own."""

    def __init__(self, name: str, threads: int, make: Callable[[Sequence[Read]], None]) -> None:
        self._make = make
        self._waiting: queue.SimpleQueue[Read | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{number}") for number in range(threads)]
        for thread in self._threads:
            thread.start()

    def add(self, read: Read) -> None:
        """Queues a read."""
        self._waiting.put(read)

    def close(self) -> None:
        """Makes what is queued and returns when that is done."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            group = [item]
            while len(group) < GROUP_LIMIT:
                try:
                    item = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    self._waiting.put(None)  # for this thread, after its group
                    break
                group.append(item)
            self._make(group)
