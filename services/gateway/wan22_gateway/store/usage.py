"""What each tenant used, by day and variant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, select

from wan22_gateway.store.database import Transaction
from wan22_gateway.store.schema import usage

DAY = 24 * 3600 * 1_000_000
UsageRow = Row[Any]


def add(tx: Transaction, tenant: str, variant: str, **more: float) -> None:
    """Adds to today's figures, by the names of their columns."""
    first = {"generations": 0, "succeeded": 0, "gpu_seconds": 0.0, "videos": 0, "video_bytes": 0, "reused": 0, **more}
    key = {"tenant": tenant, "day": tx.now // DAY, "variant": variant}
    sums = {name: usage.c[name] + value for name, value in more.items()}
    statement = tx.upsert(usage).values(**key, **first)
    tx.execute(statement.on_conflict_do_update(index_elements=list(key), set_=sums))


def since(tx: Transaction, tenant: str, day: int) -> Sequence[UsageRow]:
    """A tenant's days from one on, the newest first, then by variant."""
    query = select(usage).where(usage.c.tenant == tenant, usage.c.day >= day)
    return tx.execute(query.order_by(usage.c.day.desc(), usage.c.variant)).all()
