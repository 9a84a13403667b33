"""What was read, kept as long as nothing that it was read from has changed: the event loop asks it without a thread."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from wan22_gateway.store.database import Database, Transaction

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    value: T
    watermark: Hashable
    time: float


class _Reading:
    """A read that is under way."""

    def __init__(self, watermark: Hashable) -> None:
        self.watermark = watermark
        self.ended = asyncio.Event()


class Recall(Generic[T]):
    """Values by key, those used last.

    A value is never older than a write that was answered before it was asked for: it counts only while the watermark of
    its topics stands, and that is taken before the read. Where the store tells no watermark, each call reads.
    """

    def __init__(self, database: Database, size: int, seconds: float) -> None:
        """Keeps so many values for so many seconds at most: what is computed from the time gets on meanwhile."""
        self._database = database
        self._size = size
        self._seconds = seconds
        self._kept: OrderedDict[Hashable, _Kept[T]] = OrderedDict()
        self._reading: dict[Hashable, _Reading] = {}

    async def get(self, key: Hashable, topics: Sequence[str], read: Callable[..., T], *arguments: Any) -> T:
        """The result of `read(transaction, *arguments)`, which depends on these topics; shared, so not to be changed.

        Who asks while somebody else reads the same waits for that. Raises what `read` raises, which is not kept.
        """
        while (watermark := self._database.watermark(topics)) is not None:
            kept = self._kept.get(key)
            if kept is not None and kept.watermark == watermark and time.monotonic() - kept.time < self._seconds:
                self._kept.move_to_end(key)
                return kept.value
            under_way = self._reading.get(key)
            if under_way is None or under_way.watermark != watermark:
                break
            await under_way.ended.wait()
        return await self._read(key, watermark, lambda tx: read(tx, *arguments))

    async def _read(self, key: Hashable, watermark: Hashable | None, read: Callable[[Transaction], T]) -> T:
        if watermark is None:
            return await self._database.read(read)
        began = time.monotonic()
        reading = self._reading[key] = _Reading(watermark)
        try:
            value = await self._database.read(read)
            self._kept[key] = _Kept(value, watermark, began)
            self._kept.move_to_end(key)
            self._let_go()
        finally:
            reading.ended.set()
            if self._reading.get(key) is reading:
                del self._reading[key]
        return value

    def _let_go(self) -> None:
        """Forgets what was used longest ago, as far as it is too much or too old."""
        old = time.monotonic() - self._seconds
        while self._kept and (len(self._kept) > self._size or next(iter(self._kept.values())).time < old):
            self._kept.popitem(last=False)
