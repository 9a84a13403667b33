"""The batches of a load, made by one thread ahead of those that take them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from wan22_inference.engine.loading.plan import Batch
from wan22_inference.engine.loading.streams import Stream

AHEAD = 32
"""Batches whose tensors have their memory before anybody takes them: a device gives some in fits and starts."""


class SharedBatches:
    """Batches that several threads take, each once; one thread makes them, on a stream of their own."""

    def __init__(self, batches: Iterator[Batch], places: Stream) -> None:
        self.places = places
        self._batches = batches
        self._made: deque[Batch] = deque()
        self._lock = threading.Lock()
        self._is_room = threading.Condition(self._lock)
        self._is_more = threading.Condition(self._lock)  # apart, so that a batch wakes one thread and not all
        self._ended = False

    def make(self) -> None:
        """Returns when all are made, or closed. Raises what making them raises, and there are no more then."""
        try:
            with self.places:
                for batch in self._batches:
                    with self._is_room:
                        self._is_room.wait_for(lambda: len(self._made) < AHEAD or self._ended)
                        if self._ended:
                            return
                        self._made.append(batch)
                        self._is_more.notify()
        except BaseException:
            self.close()
            raise
        with self._is_more:
            self._ended = True
            self._is_more.notify_all()

    def __iter__(self) -> Iterator[Batch]:
        while True:
            with self._is_more:
                self._is_more.wait_for(lambda: self._made or self._ended)
                if not self._made:
                    return
                batch = self._made.popleft()
                self._is_room.notify()
            yield batch

    def close(self) -> None:
        """There are no more."""
        with self._lock:
            self._made.clear()
            self._ended = True
            self._is_room.notify_all()
            self._is_more.notify_all()
