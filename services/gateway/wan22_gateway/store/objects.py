"""Which result objects there are; each is recorded before it is written, so that none is ever unknown."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, delete, select, update

from wan22.errors import Unavailable
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.schema import objects

PENDING_LIFE = 3600 * 1_000_000
"""Microseconds after which an object that never became live is garbage; no upload takes an hour, if not paused."""


def begin(tx: Transaction, key: str) -> None:
    """Announces an object that is about to be written. Raises Unavailable while an earlier one is to be deleted."""
    values = {"state": "pending", "create_time": tx.now}
    again = tx.upsert(objects).values(key=key, **values)
    tx.execute(again.on_conflict_do_update(index_elements=["key"], set_=values, where=objects.c.state == "pending"))
    if tx.execute(select(objects.c.state).where(objects.c.key == key)).scalar_one() == "garbage":
        raise Unavailable(f"{key} is being deleted: it is written after that.", retry_after=1)


def commit(tx: Transaction, key: str) -> None:
    """Makes an object live; part of the transaction that refers to it.

    Raises Unavailable when it has been given up meanwhile, so that it must be written again.
    """
    made = update(objects).where(objects.c.key == key, objects.c.state != "garbage").values(state="live")
    if tx.execute(made.returning(objects.c.key)).one_or_none() is None:
        raise Unavailable(f"{key} took too long to be written, and is written again.", retry_after=1)


def discard(tx: Transaction, key: str) -> None:
    """Gives an object up that nothing refers to."""
    tx.execute(update(objects).where(objects.c.key == key, objects.c.state == "pending").values(state="garbage"))
    tx.notify("garbage")


def abandon_pending(tx: Transaction) -> None:
    """Makes every pending object garbage; only for a process that knows that nobody writes, itself included."""
    tx.execute(update(objects).where(objects.c.state == "pending").values(state="garbage"))


def abandon_stale(tx: Transaction) -> None:
    """Makes pending objects garbage that nobody can be writing any more."""
    stale = and_(objects.c.state == "pending", objects.c.create_time < tx.now - PENDING_LIFE)
    tx.execute(update(objects).where(stale).values(state="garbage"))


def garbage(tx: Transaction) -> list[str]:
    """Keys to delete now; none of them comes back before it is `deleted`."""
    return list(tx.execute(select(objects.c.key).where(objects.c.state == "garbage")).scalars())


def drop(tx: Transaction, keys: Sequence[str]) -> None:
    """Gives objects up that were live, and that nothing refers to any more."""
    tx.execute(update(objects).where(objects.c.key.in_(keys)).values(state="garbage"))
    tx.notify("garbage")


def deleted(tx: Transaction, key: str) -> None:
    """Forgets an object that is gone."""
    tx.execute(delete(objects).where(objects.c.key == key, objects.c.state == "garbage"))
