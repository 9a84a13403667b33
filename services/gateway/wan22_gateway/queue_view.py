"""A pool's queue as everybody is shown it: positions and predicted starts, in the order of dispatch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from wan22_gateway.scheduling.plan import Place, Plan
from wan22_gateway.scheduling.shares import Priority
from wan22_gateway.store import turns
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.generations import GenerationRow, claimed_queued

FRESH_SECONDS = 5.0
"""How long a view of an unchanged queue is shown: what runs gets on meanwhile. Without workers nothing does."""
BUSY_SHARE = 50.0
"""A view that took long to make is shown for that many times as long although the queue has changed."""
SHORT = 256
"""Generations up to which a view is made anew at each change."""


@dataclass(frozen=True, slots=True)
class QueueView:
    """A pool's queue at one time."""

    plan: Plan
    claimed: Sequence[int]
    """Positions of rows that a worker is about to start, or has prepared."""
    prepared: Mapping[int, float]
    """Seconds until what is prepared starts, by the position of its row."""
    indexes: dict[int, int]
    """By the position of a row its index in the plan."""
    rows: Sequence[Row[Any]]
    """Queued rows in the order of dispatch, the claimed ones first."""
    as_of: int
    made: float
    took: float
    """Seconds of a processor."""

    def place_of(self, row: GenerationRow) -> Place:
        """Where a QUEUED generation stands; one that is newer than the view is given the place that it will have."""
        if row.claimed_worker is not None:
            return Place(1, self.prepared.get(row.position, 0.0))
        index = self.indexes.get(row.position)
        if index is None:
            place = self.plan.place(row.tenant, Priority(row.priority))
        else:
            starts = self.plan.starts
            place = Place(index + 1, starts[index] if index < len(starts) else None)
        return Place(place.position + len(self.claimed), place.start)

    def time_of(self, place: Place) -> int | None:
        """The predicted start as the store's time."""
        return None if place.start is None else self.as_of + round(place.start * 1_000_000)

    def last_place(self, tenant: str, priority: Priority, tx: Transaction, pool: str) -> Place:
        """Where one more generation would stand."""
        place = self.plan.place(tenant, priority, turns.share_of(tx, pool, tenant))
        return Place(place.position + len(self.claimed), place.start)


def view(tx: Transaction, pool: str) -> QueueView:
    """The queue of a pool. Reads share one; it is made anew when the queue has changed."""

    def good(old: QueueView, *, changed: bool) -> bool:
        age = time.monotonic() - old.made
        if not changed:
            return not old.plan.workers or age < FRESH_SECONDS
        return len(old.rows) > SHORT and age < BUSY_SHARE * old.took

    return tx.once(("queue", pool), lambda: tx.remember(("queue", pool), "queue", lambda: _make(tx, pool), good))


def _make(tx: Transaction, pool: str) -> QueueView:
    began, worked = time.monotonic(), time.thread_time()
    plan, rows = turns.plan(tx, pool)
    claimed = claimed_queued(tx, pool)
    ordered = [*claimed, *(rows[position] for position in plan.order)]
    indexes = {position: index for index, position in enumerate(plan.order)}
    positions = [row.position for row in claimed]
    prepared = turns.prepared_starts(tx, pool)
    return QueueView(plan, positions, prepared, indexes, ordered, tx.now, began, time.thread_time() - worked)
