"""Buffers of the host's memory that readers fill and the device's thread empties, round and round."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from torch import Tensor

from wan22_inference.engine.loading.contents import Contents
from wan22_inference.engine.loading.plan import Batch
from wan22_inference.engine.loading.spent import Clock, Step
from wan22_inference.engine.loading.streams import Mark


class Buffer:
    """Memory for one batch as it is stored."""

    def __init__(self, memory: Tensor) -> None:
        """For uint8 memory of the host, as direct reads and the device want it."""
        self.memory = memory
        self.view = memory.numpy().data


@dataclass(frozen=True)
class Filled:
    """A buffer with a batch that has been read."""

    buffer: Buffer
    batch: Batch
    contents: Contents

    def __str__(self) -> str:
        return f"a batch of {len(self.contents.frames)} frames in {self.batch.size} bytes"


class BufferRing:
    """The way of a load's buffers; queues and not conditions, since Python's lock is what readers and thread share."""

    def __init__(self, buffers: list[Buffer], make: Callable[[], Buffer], most: int, readers: int) -> None:
        """For so many readers. `buffers` are used first; those that `make` gives join them, up to `most` in all."""
        self._buffers = buffers
        self._make = make
        self._most = most
        self._making = threading.Lock()
        self._readers = readers
        self._closed = False
        self._free: SimpleQueue[tuple[Buffer, Mark | None] | None] = SimpleQueue()
        self._filled: SimpleQueue[Filled | None] = SimpleQueue()
        self._next: Filled | None = None
        for buffer in buffers:
            self._free.put((buffer, None))
        self._made = len(buffers)

    def take(self, clock: Clock) -> Buffer | None:
        """A buffer to read into, once it has been copied; None when the ring is closed. For readers."""
        try:
            free = self._free.get_nowait()
        except Empty:
            with self._making:
                is_made, self._made = self._made < self._most, min(self._made + 1, self._most)
            if is_made:
                clock.lap(Step.BUFFERING)
                buffer = self._make()
                self._buffers.append(buffer)
                clock.lap(Step.PINNING)
                return buffer
            free = self._free.get()
        if free is None or self._closed:
            self._free.put(None)  # for the next reader
            return None
        buffer, copied = free
        if copied is not None:
            copied.wait()
        clock.lap(Step.BUFFERING)
        return buffer

    def fill(self, filled: Filled) -> None:
        """Hands a buffer over to the device's thread."""
        self._filled.put(filled)

    def end(self) -> None:
        """To be called by each reader that has no more."""
        self._filled.put(None)

    def next(self, seconds: float | None) -> Filled | None:
        """The next one that is filled, which stays the next until it is given back; for the device's thread.

        Waits at most so long for it; with None, until there is one. None when there will be no more, or it is closed.
        """
        while self._next is None and self._readers and not self._closed:
            try:
                filled = self._filled.get(seconds != 0, seconds)
            except Empty:
                return None
            if filled is None:
                self._readers -= 1
            self._next = filled
        return None if self._closed else self._next

    def give_back(self, copied: Mark) -> None:
        """Lets readers have the buffer of the next one, once the mark is passed."""
        if self._next is not None:
            self._free.put((self._next.buffer, copied))
            self._next = None

    @property
    def is_at_end(self) -> bool:
        """Whether `next` has no more to come; for the device's thread."""
        return self._closed or (self._next is None and not self._readers)

    @property
    def is_closed(self) -> bool:
        """Whether the load has come to a bad end."""
        return self._closed

    def close(self) -> None:
        """Ends all waiting."""
        self._closed = True
        self._free.put(None)
        self._filled.put(None)
