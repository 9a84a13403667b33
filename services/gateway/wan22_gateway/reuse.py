"""Exact-result reuse: which video of the same tenant is, bit for bit, what a request asks for.

What a request decides of its video is in one digest. What the worker decides beside that are its numerics and, where
memory was short, an economy: a video counts only if it was made without one, by numerics that a present worker of the
pool has. While no worker there has named its own, there are no bits to differ from, and any do: the recipe names them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from sqlalchemy import and_, or_, select

from wan22.parameters import Parameters
from wan22_gateway.lifecycle import State
from wan22_gateway.store import pools
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.generations import GenerationRow, NewGeneration
from wan22_gateway.store.schema import generations


def inputs_digest(variant: str, model_version: str, parameters: Parameters) -> str:
    """SHA-256 over all that a request decides of the bits: images and adapters are in the parameters by digest."""
    return hashlib.sha256(json.dumps([variant, model_version, parameters.digest]).encode()).hexdigest()


def find(tx: Transaction, new: NewGeneration) -> GenerationRow | None:
    """The newest generation whose video answers a new one; None when it has to be made."""
    present = {
        worker.numerics_digest
        for worker in pools.workers_of(tx, new.pool)
        if worker.numerics_digest and worker.lease_expire_time > tx.now
    }
    same = and_(generations.c.tenant == new.tenant, generations.c.inputs_digest == new.inputs_digest)
    there = and_(
        generations.c.state == State.SUCCEEDED,
        generations.c.video_key.is_not(None),
        generations.c.economy.is_(None),
        generations.c.numerics_digest != "",
        or_(generations.c.video_expire_time.is_(None), generations.c.video_expire_time > tx.now),
    )
    query = select(generations).where(same, there)
    if present:
        query = query.where(generations.c.numerics_digest.in_(present))
    return tx.execute(query.order_by(generations.c.position.desc()).limit(1)).one_or_none()


def answers(tx: Transaction, new: Sequence[NewGeneration]) -> list[GenerationRow | None]:
    """Which earlier generation answers each of these, if any."""
    return [find(tx, generation) for generation in new]
