"""The newest preview of each running generation, for watchers at any replica; none outlives the run.

It is in the store, not in the memory of the process that owns the attempt, so that who watches at another replica, or
comes late, has it too; a row takes at most 64 KiB, and is written at most once a second.
"""

from __future__ import annotations

from sqlalchemy import and_, delete, exists, not_, select

from wan22.v1 import generation_pb2
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.schema import generations, previews


def put(tx: Transaction, generation: str, preview: generation_pb2.Preview) -> None:
    """Makes a preview the newest one of a generation that is RUNNING, and wakes its watchers."""
    values = {"time": tx.now, "message": preview.SerializeToString()}
    statement = tx.upsert(previews).values(generation=generation, **values)
    tx.execute(statement.on_conflict_do_update(index_elements=[previews.c.generation], set_=values))
    tx.notify(f"generation/{generation}")


def newest(tx: Transaction, generation: str, seen: int) -> generation_pb2.GenerationEvent | None:
    """The newest preview as the event that a watcher gets; None where that is the one of a time it has seen."""
    mine = and_(previews.c.generation == generation, previews.c.time != seen)
    row = tx.execute(select(previews).where(mine)).one_or_none()
    if row is None:
        return None
    event = generation_pb2.GenerationEvent(preview=generation_pb2.Preview.FromString(row.message))
    event.event_time.FromMicroseconds(row.time)
    return event


def drop(tx: Transaction, generation: str) -> None:
    """Forgets a generation's preview: it has ended, or starts anew."""
    tx.execute(delete(previews).where(previews.c.generation == generation))


def sweep(tx: Transaction) -> None:
    """Forgets previews of generations that a gateway without previews has brought to their end."""
    unfinished = and_(generations.c.id == previews.c.generation, generations.c.end_time.is_(None))
    tx.execute(delete(previews).where(not_(exists().where(unfinished))))
