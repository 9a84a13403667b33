"""Which result objects there are; each is recorded before it is written, so that none is ever unknown."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, delete, or_, select, update

from wan22_gateway.store.database import Transaction
from wan22_gateway.store.schema import objects

PENDING_LIFE = 3600 * 1_000_000
"""Microseconds after which an object that never became live is garbage; no upload takes an hour."""


def begin(tx: Transaction, key: str) -> None:
    """Announces an object that is about to be written."""
    values = {"state": "pending", "create_time": tx.now}
    again = tx.upsert(objects).values(key=key, **values)
    tx.execute(again.on_conflict_do_update(index_elements=["key"], set_=values, where=objects.c.state != "live"))


def commit(tx: Transaction, key: str) -> None:
    """Makes an object live; part of the transaction that refers to it."""
    tx.execute(update(objects).where(objects.c.key == key).values(state="live"))


def discard(tx: Transaction, key: str) -> None:
    """Gives an object up that nothing refers to."""
    tx.execute(update(objects).where(objects.c.key == key, objects.c.state == "pending").values(state="garbage"))
    tx.notify("garbage")


def abandon_pending(tx: Transaction) -> None:
    """Makes every pending object garbage; only for a process that knows that no other one writes."""
    tx.execute(update(objects).where(objects.c.state == "pending").values(state="garbage"))


def garbage(tx: Transaction) -> list[str]:
    """Keys to delete now."""
    stale = and_(objects.c.state == "pending", objects.c.create_time < tx.now - PENDING_LIFE)
    return list(tx.execute(select(objects.c.key).where(or_(objects.c.state == "garbage", stale))).scalars())


def drop(tx: Transaction, keys: Sequence[str]) -> None:
    """Gives objects up that were live, and that nothing refers to any more."""
    tx.execute(update(objects).where(objects.c.key.in_(keys)).values(state="garbage"))
    tx.notify("garbage")


def deleted(tx: Transaction, key: str) -> None:
    """Forgets an object that is gone."""
    tx.execute(delete(objects).where(objects.c.key == key))
