"""Shared snapshots: threads that take whatever reads are waiting and have them made of one state of the store."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wan22_gateway.store.database import Transaction  # which stands on this module

GROUP_LIMIT = 16
"""Most reads that share one snapshot: bounds how long the last of them waits for the others."""


class Read:
    """A function that waits for its snapshot, and what came of it."""

    def __init__(self, function: Callable[[Transaction], Any], future: asyncio.Future[Any]) -> None:
        self.function = function
        self.result: Any = None
        self.error: Exception | None = None
        self._future = future

    def settle(self) -> None:
        """Tells whoever waits; on the event loop."""
        if self._future.done():  # whoever asked has gone
            return
        if self.error is not None:
            self._future.set_exception(self.error)
        else:
            self._future.set_result(self.result)


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
