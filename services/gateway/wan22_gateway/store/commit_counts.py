"""How many commits each topic has seen, in a bounded number of slots: equal counts mean that nothing has changed."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

GENERATIONS, OTHERS = 1 << 14, 1 << 12
"""Slots of generations' topics, of which there is no end, and of all others, which these must not disturb. In either,
topics share slots by their hash: a neighbour's commit only makes somebody read again."""


class CommitCounts:
    """Written by the one thread that commits, read by any.

    While a commit is under way nobody can say on which side of it a read would be, so its topics have no watermark.
    """

    def __init__(self) -> None:
        self._counts = [0] * (GENERATIONS + OTHERS)
        self._under_way: frozenset[int] = frozenset()

    def begin(self, topics: Iterable[str]) -> None:
        """A commit that changes these is about to be made."""
        self._under_way = frozenset(map(_slot, topics))

    def end(self) -> None:
        """It is made, or has failed."""
        for slot in self._under_way:
            self._counts[slot] += 1
        self._under_way = frozenset()

    def watermark(self, topics: Iterable[str]) -> Hashable | None:
        """Changes with each commit to one of the topics; None while one is under way."""
        slots = [_slot(topic) for topic in topics]
        if not self._under_way.isdisjoint(slots):
            return None
        return tuple(self._counts[slot] for slot in slots)


def _slot(topic: str) -> int:
    if topic.startswith("generation/"):
        return hash(topic) % GENERATIONS
    return GENERATIONS + hash(topic) % OTHERS
