"""Watching one generation: its numbered events, and unnumbered snapshots: its place while it is QUEUED, previews."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from wan22.errors import OutOfRange
from wan22.v1 import generation_pb2
from wan22_gateway.lifecycle import FINAL, State
from wan22_gateway.places import Follower, Places, look
from wan22_gateway.store import generations, previews
from wan22_gateway.store.database import Database, Transaction

Event = generation_pb2.GenerationEvent


async def watch(
    database: Database, places: Places, tenant: str, generation: str, after_sequence: int
) -> AsyncIterator[generation_pb2.GenerationEvent]:
    """Yields each event behind `after_sequence` once, in order, and ends behind the final one.

    Raises NotFound, also when the generation is deleted meanwhile, and OutOfRange for a number that is still to come.
    """
    row = await database.read(generations.get, tenant, generation)
    check_sequence(f"generations/{generation}", after_sequence, row.last_sequence)
    shown = 0
    with database.listen(f"generation/{generation}") as wake, places.follow(generation) as follower:
        while True:
            wake.clear()
            state, events, snapshot, preview = await database.read(_look, tenant, generation, after_sequence, shown)
            for event in events:
                after_sequence = event.sequence
                yield event
            if preview is not None:
                shown = preview.event_time.ToMicroseconds()
                yield preview
            if state in FINAL:
                return
            if snapshot is not None:
                follower.offer(snapshot)
            while not wake.is_set():
                place = follower.take()
                if place is not None:
                    yield place
                await _either(wake, follower)


def check_sequence(name: str, after_sequence: int, last: int) -> None:
    """Raises OutOfRange for a number that is still to come."""
    if not 0 <= after_sequence <= last:
        text = f"after_sequence is {after_sequence}: {name} has events 1 to {last}."
        raise OutOfRange(text, metadata={"last_sequence": str(last)})


async def _either(wake: asyncio.Event, follower: Follower) -> None:
    """Returns once there is an event to read, or news of the place."""
    waits = [asyncio.ensure_future(wake.wait()), asyncio.ensure_future(follower.news.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _look(
    tx: Transaction, tenant: str, generation: str, after_sequence: int, shown: int
) -> tuple[str, list[Event], Event | None, Event | None]:
    """The state, what is new of events, the place in the queue, and the preview that is not `shown` yet."""
    row = generations.get(tx, tenant, generation)
    events = generations.events_after(tx, generation, after_sequence)
    snapshots = look(tx, [generation]) if row.state == State.QUEUED else []
    running = row.preview_interval is not None and row.state == State.RUNNING
    preview = previews.newest(tx, generation, shown) if running else None
    return row.state, events, snapshots[0][1] if snapshots else None, preview
