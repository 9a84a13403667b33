"""Group commit: a thread that takes whatever writes are waiting and has them committed together."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from wan22_gateway.store.asked import Asked
from wan22_gateway.store.facts import Fact, Written

if TYPE_CHECKING:
    from wan22_gateway.store.database import Transaction  # which stands on this module

GROUP_LIMIT = 256
"""Most writes that share one commit: bounds how long the first of them waits."""


class Write(Asked):
    """A function that waits for its transaction, and what came of it."""

    def __init__(self, function: Callable[[Transaction], Any], future: asyncio.Future[Any]) -> None:
        super().__init__(function, future)
        self.noted: Sequence[Fact] = ()
        self._asked = time.monotonic()

    @property
    def facts(self) -> Iterator[Fact]:
        """What there is to tell once it is settled."""
        yield Written(time.monotonic() - self._asked, failed=self.error is not None)
        yield from self.noted


class GroupWriter:
    """Hands groups of writes to `commit`, one after the other, in a thread of its own."""

    def __init__(self, name: str, commit: Callable[[Sequence[Write]], None]) -> None:
        self._commit = commit
        self._waiting: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name)
        self._thread.start()

    def add(self, write: Write) -> None:
        """Queues a write."""
        self._waiting.put(write)

    def close(self) -> None:
        """Commits what is queued and returns when that is done."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        open_ = True
        while open_:
            group: list[Write] = []
            item = self._waiting.get()
            while item is not None:
                group.append(item)
                if len(group) == GROUP_LIMIT:
                    break
                try:
                    item = self._waiting.get_nowait()
                except queue.Empty:
                    break
            open_ = item is not None
            if group:
                self._commit(group)
