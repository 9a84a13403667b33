"""What reads have made of the store and may be shown again, as long as a proof says that it is still so."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Concatenate, Protocol, TypeVar

T = TypeVar("T")
TOPICS = frozenset({"queue"})
"""Topics whose commits are kept count of; most topics are one generation's and would only fill memory."""


class History(Protocol):
    """What one read can say of the commits before it."""

    def position(self, topic: str) -> Hashable:
        """Where in the topic's history this read stands."""

    def changed(self, topic: str, since: Any, age: float) -> bool:
        """Whether this read sees a commit to the topic that a read at `since`, so many seconds ago, did not see."""


@dataclass(frozen=True)
class _Made:
    value: Any
    position: Hashable
    time: float


class Memory:
    """Values by key, each made once by whichever read needs it first."""

    def __init__(self) -> None:
        self._made: dict[Hashable, _Made] = {}
        self._locks: defaultdict[Hashable, threading.Lock] = defaultdict(threading.Lock)

    def get(
        self,
        key: Hashable,
        topic: str,
        history: History,
        make: Callable[[], T],
        good: Callable[Concatenate[T, ...], bool],
    ) -> T:
        """What was made for the key if `good(value, changed=…)` accepts it, else what `make` returns now."""
        with self._locks[key]:
            known = self._made.get(key)
            if known is not None:
                value: T = known.value
                if good(value, changed=history.changed(topic, known.position, time.monotonic() - known.time)):
                    return value
            position, began = history.position(topic), time.monotonic()
            value = make()
            self._made[key] = _Made(value, position, began)
            return value

    def clear(self) -> None:
        """Forgets all values."""
        self._made.clear()
