"""Checkpoints of unfinished generations: the newest two are kept, as objects of the result store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, and_, delete, exists, insert, select

from wan22.v1 import inference_pb2
from wan22_gateway.store import objects
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.schema import checkpoints

CheckpointRow = Row[Any]
KEPT = 2
"""The newest, and one in reserve in case it turns out to be damaged."""


def newest(tx: Transaction, generation: str) -> Sequence[CheckpointRow]:
    """What is kept, the newest first."""
    mine = select(checkpoints).where(checkpoints.c.generation == generation)
    return tx.execute(mine.order_by(checkpoints.c.step.desc())).all()


def add(tx: Transaction, generation: str, attempt: int, key: str, made: inference_pb2.Checkpoint) -> None:
    """Keeps one whose object, announced before, is written; what it makes superfluous becomes garbage."""
    row = {
        "key": key,
        "generation": generation,
        "attempt": attempt,
        "step": made.step,
        "size_bytes": made.size_bytes,
        "digest": made.digest,
        "numerics_digest": made.numerics_digest,
    }
    tx.execute(insert(checkpoints).values(row))
    objects.commit(tx, key)
    _drop(tx, [old.key for old in newest(tx, generation)[KEPT:]])


def drop(tx: Transaction, key: str) -> None:
    """Gives one up that is of no use."""
    _drop(tx, [key])


def drop_all(tx: Transaction, generation: str) -> None:
    """Gives all of a generation up: it has ended, or starts anew."""
    _drop(tx, [row.key for row in newest(tx, generation)])


def made_in(tx: Transaction, generation: str, attempt: int) -> bool:
    """Whether an attempt got as far as a checkpoint that is still kept."""
    mine = and_(checkpoints.c.generation == generation, checkpoints.c.attempt == attempt)
    return bool(tx.execute(select(exists().where(mine))).scalar_one())


def _drop(tx: Transaction, keys: list[str]) -> None:
    if keys:
        tx.execute(delete(checkpoints).where(checkpoints.c.key.in_(keys)))
        objects.drop(tx, keys)
