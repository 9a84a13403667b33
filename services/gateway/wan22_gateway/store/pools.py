"""Rows of pools and of the workers in them."""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from typing import Any

from sqlalchemy import Row, and_, bindparam, delete, func, or_, select, update

from wan22.errors import FailedPrecondition, NotFound, Reason
from wan22.v1 import inference_pb2, pool_pb2
from wan22_gateway.cost import CostModel, Work
from wan22_gateway.lifecycle import UNFINISHED, State, fail_waiting
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.schema import generations, pools, workers

PoolRow = Row[Any]
WorkerRow = Row[Any]


def apply(tx: Transaction, pool: pool_pb2.Pool) -> None:
    """Creates a pool or changes it to the given spec; its fitted speed is kept while it serves the same version."""
    spec: dict[str, Any] = {
        "variant": pool.variant,
        "model_version": pool.model_version,
        "max_workers": pool.max_workers,
        "default_for_variant": pool.default_for_variant,
        "distilled": pool.distilled,
        "worker_targets": json.dumps(list(pool.worker_targets)),
        "earlier_versions": json.dumps(sorted({*pool.earlier_versions} - {pool.model_version})),
        "obstacle": pool.obstacle or None,
    }
    same = and_(pools.c.name == pool.name, *(pools.c[column] == value for column, value in spec.items()))
    if tx.execute(select(pools.c.name).where(same)).one_or_none() is not None:
        return
    other = and_(pools.c.name == pool.name, pools.c.model_version != pool.model_version)
    tx.execute(update(pools).where(other).values(cost_model=None))
    statement = tx.upsert(pools).values(name=pool.name, apply_time=tx.now, **spec)
    tx.execute(statement.on_conflict_do_update(index_elements=["name"], set_={**spec, "apply_time": tx.now}))
    tx.notify("pools")
    tx.notify("queue")


def remove(tx: Transaction, name: str) -> None:
    """Deletes a pool and its workers. Raises NotFound, FailedPrecondition (POOL_IN_USE) with unfinished generations."""
    get(tx, name)
    unfinished = and_(generations.c.pool == name, generations.c.state.in_(UNFINISHED))
    count = tx.execute(select(func.count()).select_from(generations).where(unfinished)).scalar_one()
    if count:
        text = f"{name} has {count} unfinished generations: wait for them or cancel them, then delete it."
        raise FailedPrecondition(text, reason=Reason.POOL_IN_USE, metadata={"unfinished": str(count)})
    tx.execute(delete(workers).where(workers.c.pool == name))
    tx.execute(delete(pools).where(pools.c.name == name))
    tx.notify("pools")


def refuse_queued(tx: Transaction, name: str) -> None:
    """Ends what waits in a pool's queue and no worker was claimed for: FAILED with POOL_DELETED. Raises NotFound."""
    get(tx, name)
    waits = and_(
        generations.c.pool == name, generations.c.state == State.QUEUED, generations.c.claimed_worker.is_(None)
    )
    for identifier in tx.execute(select(generations.c.id).where(waits)).scalars().all():
        text = (
            f"{name} was deleted while generations/{identifier} waited in its queue: create it again for another pool."
        )
        fail_waiting(tx, identifier, FailedPrecondition(text, reason=Reason.POOL_DELETED, metadata={"pool": name}))


def get(tx: Transaction, name: str) -> PoolRow:
    """One pool. Raises NotFound naming those that there are."""
    row = tx.execute(select(pools).where(pools.c.name == name)).one_or_none()
    if row is None:
        known = ", ".join(tx.execute(select(pools.c.name).order_by(pools.c.name)).scalars()) or "none"
        raise NotFound(f"{name} is not a pool of this gateway; there are: {known}.")
    return row


def versions_of(pool: PoolRow) -> frozenset[str]:
    """Those that its workers may hold: its own, and earlier ones while their workers are replaced."""
    return frozenset({pool.model_version, *json.loads(pool.earlier_versions or "[]")})


def list_all(tx: Transaction) -> Sequence[PoolRow]:
    """Every pool, by name."""
    return tx.execute(select(pools).order_by(pools.c.name)).all()


def serving(tx: Transaction) -> dict[str, PoolRow]:
    """The default pool of each served variant: the one applied last of those marked so."""
    query = select(pools).where(pools.c.max_workers > 0, pools.c.default_for_variant).order_by(pools.c.apply_time)
    return {row.variant: row for row in tx.execute(query).all()}


def learn(tx: Transaction, pool: str, work: Work, seconds: float) -> None:
    """Learns a pool's speed from one finished generation."""
    known = tx.execute(select(pools.c.cost_model).where(pools.c.name == pool)).one_or_none()
    if known is not None:
        model = CostModel.from_json(known.cost_model).learned(work, seconds)
        tx.execute(update(pools).where(pools.c.name == pool).values(cost_model=model.to_json()))
        tx.notify("speeds")


def workers_of(tx: Transaction, pool: str) -> Sequence[WorkerRow]:
    """The pool's workers, by name."""
    return tx.execute(_WORKERS_OF, {"pool": pool}).all()


_WORKERS_OF = select(workers).where(workers.c.pool == bindparam("pool")).order_by(workers.c.name)


def get_worker(tx: Transaction, name: str) -> WorkerRow:
    """One worker. Raises NotFound."""
    row = tx.execute(select(workers).where(workers.c.name == name)).one_or_none()
    if row is None:
        raise NotFound(f"{name} is not known to this gateway: no pool's targets have led to it.")
    return row


def heard_from(tx: Transaction, worker: inference_pb2.Worker, address: str, lease_seconds: float) -> None:
    """Records that a worker has answered, what it says, and until when it therefore counts as alive."""
    spec: dict[str, Any] = {
        "uid": worker.uid,
        "incarnation": worker.incarnation,
        "pool": worker.pool,
        "model_version": worker.model_version,
        "address": address,
        "state": inference_pb2.Worker.State.Name(worker.state),
        "bytes_total": worker.bytes_total,
        "bytes_loaded": worker.bytes_loaded,
        "error": worker.error.message,
        "numerics_digest": worker.numerics_digest,
        "memory": worker.memory.SerializeToString() if worker.HasField("memory") else None,
        "lease_expire_time": tx.now + round(lease_seconds * 1_000_000),
        "lost": False,
    }
    statement = tx.upsert(workers).values(name=worker.name, **spec)
    tx.execute(statement.on_conflict_do_update(index_elements=["name"], set_=spec))
    tx.notify("queue")
    tx.notify("workers")
    tx.notify(worker.name)


def lose_silent(tx: Transaction, pool: str, addresses: Container[str], asked_since: int) -> list[str]:
    """Marks workers at these addresses as lost whose lease had lapsed before they were asked in vain; returns them.

    A lease that lapsed while nobody asked, because the gateway was down or paused, loses nobody.
    """
    names = [w.name for w in workers_of(tx, pool) if w.address in addresses and _is_silent(w, asked_since)]
    tx.execute(update(workers).where(workers.c.name.in_(names)).values(lost=True))
    for name in names:
        tx.notify(name)
    return names


def any_silent(tx: Transaction, pool: str, addresses: Container[str], asked_since: int) -> bool:
    """True when `lose_silent` would mark a worker."""
    return any(w.address in addresses and _is_silent(w, asked_since) for w in workers_of(tx, pool))


def _is_silent(worker: WorkerRow, asked_since: int) -> bool:
    return not worker.lost and worker.lease_expire_time <= asked_since


def drain(tx: Transaction, name: str, lease_seconds: float, allow_claimed: bool = False) -> None:  # noqa: FBT001, FBT002
    """Bars a worker from new attempts until the lease lapses.

    Raises FailedPrecondition while one is claimed for it, unless that is allowed.
    """
    row = get_worker(tx, name)
    if row.generation is not None and not allow_claimed:
        text = f"{name} has an attempt of generations/{row.generation}: wait for its end, or drain another worker."
        raise FailedPrecondition(text, reason=Reason.WORKER_CLAIMED, metadata={"generation": row.generation})
    lapse = tx.now + round(lease_seconds * 1_000_000)
    tx.execute(update(workers).where(workers.c.name == name).values(drain_expire_time=lapse))
    tx.notify("pools")


def undrain(tx: Transaction, name: str) -> None:
    """Lets a worker take attempts again. Raises NotFound."""
    get_worker(tx, name)
    tx.execute(update(workers).where(workers.c.name == name).values(drain_expire_time=None))
    tx.notify("queue")
    tx.notify("pools")


def forget_dead(tx: Transaction, silence_seconds: float) -> None:
    """Removes unclaimed workers that have been silent for that long beyond their lease, or whose pool is gone."""
    silent = workers.c.lease_expire_time < tx.now - round(silence_seconds * 1_000_000)
    orphaned = workers.c.pool.not_in(select(pools.c.name))
    tx.execute(delete(workers).where(workers.c.generation.is_(None), or_(silent, orphaned)))
