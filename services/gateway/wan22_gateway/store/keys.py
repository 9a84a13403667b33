"""Rows of API keys."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, insert, or_, select, update

from wan22.errors import FailedPrecondition, NotFound
from wan22_gateway.identity.caller import Caller
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.schema import keys

KeyRow = Row[Any]


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a key, and until when."""

    caller: Caller
    end: float
    """By this process's monotonic clock; infinite for a key that does not expire."""


def find(tx: Transaction, digest: str) -> Holder | None:
    """Who has the key of a digest; None when there is none, or it has ended."""
    return tx.once(("key", digest), lambda: _find(tx, digest))


def _find(tx: Transaction, digest: str) -> Holder | None:
    alive = or_(keys.c.expire_time.is_(None), keys.c.expire_time > tx.now)
    columns = (keys.c.id, keys.c.tenant, keys.c.roles, keys.c.expire_time)
    row = tx.execute(select(*columns).where(keys.c.digest == digest, keys.c.revoke_time.is_(None), alive)).one_or_none()
    if row is None:
        return None
    end = math.inf if row.expire_time is None else time.monotonic() + (row.expire_time - tx.now) / 1_000_000
    return Holder(Caller(row.tenant, frozenset(json.loads(row.roles)), f"keys/{row.id}"), end)


def add(
    tx: Transaction,
    *,
    digest: str,
    key_id: str,
    tenant: str,
    roles: Sequence[int],
    description: str,
    expire_time: int | None,
    declared: bool = False,
) -> KeyRow:
    """Stores a new key."""
    values = {
        "digest": digest,
        "id": key_id,
        "tenant": tenant,
        "roles": json.dumps(sorted(set(roles))),
        "description": description,
        "create_time": tx.now,
        "expire_time": expire_time,
        "declared": declared,
    }
    tx.execute(insert(keys).values(values))
    tx.notify("keys")
    return get(tx, key_id)


def get(tx: Transaction, key_id: str) -> KeyRow:
    """One key. Raises NotFound."""
    row = tx.execute(select(keys).where(keys.c.id == key_id)).one_or_none()
    if row is None:
        raise NotFound(f"keys/{key_id} does not exist.")
    return row


def list_all(tx: Transaction, tenant: str) -> Sequence[KeyRow]:
    """Every key, or one tenant's."""
    query = select(keys).order_by(keys.c.tenant, keys.c.create_time, keys.c.id)
    return tx.execute(query.where(keys.c.tenant == tenant) if tenant else query).all()


def revoke(tx: Transaction, key_id: str) -> KeyRow:
    """Ends a key. Raises NotFound, FailedPrecondition for one of the file."""
    if get(tx, key_id).declared:
        raise FailedPrecondition(f"keys/{key_id} is one of the gateway's file of keys: take it out there.")
    mine = update(keys).where(keys.c.id == key_id, keys.c.revoke_time.is_(None))
    tx.execute(mine.values(revoke_time=tx.now))
    tx.notify("keys")
    return get(tx, key_id)
