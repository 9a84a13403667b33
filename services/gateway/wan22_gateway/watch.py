"""Watching one generation: its numbered events, and while it is QUEUED unnumbered snapshots of its place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from wan22.errors import OutOfRange
from wan22.v1 import generation_pb2
from wan22_gateway.generation_messages import queue_snapshot
from wan22_gateway.lifecycle import FINAL, State, timestamp
from wan22_gateway.store import generations
from wan22_gateway.store.database import Database, Transaction

SNAPSHOT_SECONDS = 1.0
"""How often a queued generation's place is looked at; others' events move it, so nothing wakes its own watchers."""

START_NEWS_SECONDS = 5.0
"""How much the predicted start must move to be told."""


async def watch(
    database: Database, tenant: str, generation: str, after_sequence: int
) -> AsyncIterator[generation_pb2.GenerationEvent]:
    """Yields each event behind `after_sequence` once, in order, and ends behind the final one.

    Raises NotFound, also when the generation is deleted meanwhile, and OutOfRange for a number that is still to come.
    """
    row = await database.read(generations.get, tenant, generation)
    check_sequence(f"generations/{generation}", after_sequence, row.last_sequence)
    last_snapshot: generation_pb2.QueueSnapshot | None = None
    with database.listen(f"generation/{generation}") as wake:
        while True:
            wake.clear()
            state, events, snapshot = await database.read(_look, tenant, generation, after_sequence)
            for event in events:
                after_sequence = event.sequence
                yield event
            if state in FINAL:
                return
            if snapshot is not None and _is_news(snapshot.queue, last_snapshot):
                last_snapshot = snapshot.queue
                yield snapshot
            with suppress(TimeoutError):
                async with asyncio.timeout(SNAPSHOT_SECONDS if state == State.QUEUED else None):
                    await wake.wait()


def check_sequence(name: str, after_sequence: int, last: int) -> None:
    """Raises OutOfRange for a number that is still to come."""
    if not 0 <= after_sequence <= last:
        text = f"after_sequence is {after_sequence}: {name} has events 1 to {last}."
        raise OutOfRange(text, metadata={"last_sequence": str(last)})


def _is_news(now: generation_pb2.QueueSnapshot, before: generation_pb2.QueueSnapshot | None) -> bool:
    """Whether a snapshot says something new: predicted starts always move a little."""
    if before is None or (now.queue_position, now.waiting_for) != (before.queue_position, before.waiting_for):
        return True
    moved = now.predicted_start_time.ToMicroseconds() - before.predicted_start_time.ToMicroseconds()
    return abs(moved) > START_NEWS_SECONDS * 1_000_000


def _look(
    tx: Transaction, tenant: str, generation: str, after_sequence: int
) -> tuple[str, list[generation_pb2.GenerationEvent], generation_pb2.GenerationEvent | None]:
    row = generations.get(tx, tenant, generation)
    events = generations.events_after(tx, generation, after_sequence)
    if row.state != State.QUEUED:
        return row.state, events, None
    snapshot = generation_pb2.GenerationEvent(event_time=timestamp(tx.now), queue=queue_snapshot(tx, row))
    return row.state, events, snapshot
