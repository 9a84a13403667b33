"""Whose turn it is: fair shares as rows, changed when work is queued, dispatched and settled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import BigInteger, Row, Text, and_, bindparam, delete, exists, func, or_, select, update

from wan22_gateway.scheduling.plan import Plan, TenantQueue, Waiting, candidates
from wan22_gateway.scheduling.shares import Priority, Share, activated, dispatched, settled
from wan22_gateway.store import usage
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.schema import attempts, generations, pools, shares, workers
from wan22_gateway.store.tenants import Limits, limits, limits_of

CHUNK = 32
"""Rows looked at together where the first of a queue can go to no free worker."""
LOAD_SECONDS = 60.0
"""How long a whole model takes to load, as far as it is not known: only predictions of starts use it."""


def _share(row: Row[Any]) -> Share:
    return Share(row.tag, row.priority_time, (row.low_tag, row.normal_tag, row.high_tag))


def _store(tx: Transaction, pool: str, tenant: str, share: Share) -> None:
    low, normal, high = share.priority_tags
    values = {"tag": share.tag, "priority_time": share.priority_time}
    values |= {"low_tag": low, "normal_tag": normal, "high_tag": high}
    statement = tx.upsert(shares).values(pool=pool, tenant=tenant, **values)
    tx.execute(statement.on_conflict_do_update(index_elements=["pool", "tenant"], set_=values))


def share_of(tx: Transaction, pool: str, tenant: str) -> Share:
    """What a tenant has had of a pool."""
    row = tx.execute(select(shares).where(shares.c.pool == pool, shares.c.tenant == tenant)).one_or_none()
    return Share() if row is None else _share(row)


def virtual_time(tx: Transaction, pool: str) -> float:
    """A pool's virtual time."""
    return float(tx.execute(select(pools.c.virtual_time).where(pools.c.name == pool)).scalar_one_or_none() or 0.0)


def queue_up(tx: Transaction, pool: str, tenant: str) -> None:
    """Makes a tenant one of those that wait for a pool; called before its generation's row is inserted."""
    if not tx.execute(_WAITS, {"pool": pool, "tenant": tenant}).scalar_one():
        _store(tx, pool, tenant, activated(share_of(tx, pool, tenant), virtual_time(tx, pool)))


_WAITS = select(
    exists().where(
        generations.c.state == "QUEUED",
        generations.c.pool == bindparam("pool"),
        generations.c.tenant == bindparam("tenant"),
    )
)


def _queued(pool: str) -> Any:
    return and_(generations.c.state == "QUEUED", generations.c.pool == pool)


def running(tx: Transaction) -> dict[str, int]:
    """How many generations of each tenant have a worker, or are next on one."""
    query = select(generations.c.tenant, func.count().label("number"))
    claimed = or_(workers.c.generation == generations.c.id, workers.c.prepared == generations.c.id)
    query = query.join(workers, claimed)
    return {row.tenant: row.number for row in tx.execute(query.group_by(generations.c.tenant)).all()}


def waiting(tx: Transaction, pool: str, version: str) -> Iterator[tuple[str, Priority, Waiting]]:
    """Yields what waits unclaimed in a pool for a worker of a version, the next to be dispatched first.

    Tenants that may run no more are left out.
    """
    allowed, busy = limits(tx), running(tx)

    def may_run(tenant: str) -> bool:
        limit = allowed.get(tenant, Limits()).max_running
        return limit is None or busy.get(tenant, 0) < limit

    def oldest(tenant: str, priority: Priority) -> Iterator[Waiting]:
        last = -1
        mine = and_(
            _queued(pool),
            generations.c.tenant == tenant,
            generations.c.priority == priority,
            generations.c.model_version == version,
            generations.c.claimed_worker.is_(None),
        )
        query = select(generations.c.position, generations.c.predicted_seconds, generations.c.charged_seconds)
        while True:
            rows = tx.execute(query.where(mine, generations.c.position > last).order_by("position").limit(CHUNK)).all()
            for row in rows:
                last = row.position
                yield Waiting(row.position, row.predicted_seconds, _charge(row))
            if len(rows) < CHUNK:
                return

    found = tx.execute(select(shares).where(shares.c.pool == pool)).all()
    here = {row.tenant: _share(row) for row in found if may_run(row.tenant)}
    yield from candidates(here, lambda tenant: {priority: oldest(tenant, priority) for priority in Priority})


def _charge(row: Row[Any]) -> float:
    return 0.0 if row.charged_seconds else float(row.predicted_seconds)


def charge(tx: Transaction, row: Row[Any]) -> None:
    """Charges a generation that is given to a worker to its tenant; only the first time."""
    weight = limits_of(tx, row.tenant).weight
    share = share_of(tx, row.pool, row.tenant)
    time = virtual_time(tx, row.pool)
    share, time = dispatched(share, time, Priority(row.priority), _charge(row), weight)
    _store(tx, row.pool, row.tenant, share)
    tx.execute(update(pools).where(pools.c.name == row.pool).values(virtual_time=time))
    charged = max(row.charged_seconds, row.predicted_seconds)
    tx.execute(update(generations).where(generations.c.id == row.id).values(charged_seconds=charged))


def settle(tx: Transaction, generation: str) -> None:
    """Corrects what a tenant was charged to what was used, once the final state is set, and adds it to its usage.

    Worker time counts, but not that of attempts whose worker was lost.
    """
    row = tx.execute(select(generations).where(generations.c.id == generation)).one()
    seconds = func.sum(func.coalesce(attempts.c.end_time, tx.now) - attempts.c.start_time)
    ours = or_(attempts.c.outcome.is_(None), attempts.c.outcome.not_in(["lost", "died"]))
    used = tx.execute(select(seconds).where(attempts.c.generation == generation, ours)).scalar_one()
    used_seconds = max(0, int(used or 0)) / 1_000_000  # PostgreSQL's sum of BIGINT is a Decimal
    if row.charged_seconds:
        weight = limits_of(tx, row.tenant).weight
        share = settled(share_of(tx, row.pool, row.tenant), used_seconds - row.charged_seconds, weight)
        _store(tx, row.pool, row.tenant, share)
    tx.execute(update(generations).where(generations.c.id == generation).values(charged_seconds=used_seconds))
    made = int(row.state == "SUCCEEDED")
    figures = {"generations": 1, "succeeded": made, "videos": made, "gpu_seconds": used_seconds}
    usage.add(tx, row.tenant, row.variant, **figures, video_bytes=row.video_size or 0)


def forget_idle(tx: Transaction) -> None:
    """Removes shares that say nothing any more: the tenant has nothing unfinished there, and is not ahead of time."""
    unfinished = exists().where(
        generations.c.state.in_(["QUEUED", "RUNNING"]),
        generations.c.pool == shares.c.pool,
        generations.c.tenant == shares.c.tenant,
    )
    time = select(pools.c.virtual_time).where(pools.c.name == shares.c.pool).scalar_subquery()
    tx.execute(delete(shares).where(~unfinished, or_(time.is_(None), shares.c.tag <= time)))


def plan(tx: Transaction, pool: str) -> tuple[Plan, Mapping[int, Row[Any]]]:
    """Plays a pool's unclaimed queue ahead; returns the plan and the queued rows by position."""
    columns = ("position", "tenant", "priority", "predicted_seconds", "charged_seconds", "create_time")
    query = select(*(generations.c[name] for name in columns), generations.c.start_by_time)
    unclaimed = and_(_queued(pool), generations.c.claimed_worker.is_(None))
    rows = {row.position: row for row in tx.execute(query.where(unclaimed).order_by(generations.c.position)).all()}
    queues: dict[str, dict[Priority, list[Waiting]]] = {}
    for position, row in rows.items():
        entry = Waiting(position, row.predicted_seconds, _charge(row))
        queues.setdefault(row.tenant, {}).setdefault(Priority(row.priority), []).append(entry)
    known = {row.tenant: _share(row) for row in tx.execute(select(shares).where(shares.c.pool == pool))}
    allowed, busy = limits(tx), running(tx)
    tenants = [
        TenantQueue(
            name,
            known.get(name, Share()),
            queue,
            allowed.get(name, Limits()).weight,
            busy.get(name, 0),
            allowed.get(name, Limits()).max_running,
        )
        for name, queue in queues.items()
    ]
    return Plan(tenants, virtual_time(tx, pool), _free_at(tx, pool)), rows


def _free_at(tx: Transaction, pool: str) -> list[tuple[float, str]]:
    """Seconds until each worker of a pool that may take work is free, and the tenant that has it now."""
    ends = []
    for row in tx.execute(_USABLE_WORKERS, {"pool": pool, "now": tx.now}):
        if row.generation is not None:
            elapsed = 0.0 if row.start_time is None else (tx.now - row.start_time) / 1_000_000
            ends.append((max(0.0, row.predicted_seconds - elapsed) + row.prepared_seconds, row.tenant))
        elif row.state == "LOADING":
            left = 1.0 - row.bytes_loaded / row.bytes_total if row.bytes_total else 1.0
            ends.append((LOAD_SECONDS * left, ""))
        else:
            ends.append((0.0, ""))
    return ends


def prepared_starts(tx: Transaction, pool: str) -> Mapping[int, float]:
    """Seconds until each prepared generation of a pool is predicted to start, by its position."""
    rows = tx.execute(_PREPARED, {"pool": pool})
    return {row.position: max(0.0, row.predicted_seconds - (tx.now - row.start_time) / 1_000_000) for row in rows}


# An alias copies all columns of its table, in cycles: made for each view, they were most of the collector's work.
_OTHER = generations.alias()
_POOL, _NOW = bindparam("pool", type_=Text()), bindparam("now", type_=BigInteger())
_USABLE_WORKERS = (
    select(
        workers,
        generations.c.tenant,
        generations.c.predicted_seconds,
        attempts.c.start_time,
        func.coalesce(_OTHER.c.predicted_seconds, 0.0).label("prepared_seconds"),
    )
    .outerjoin(_OTHER, _OTHER.c.id == workers.c.prepared)
    .outerjoin(generations, generations.c.id == workers.c.generation)
    .outerjoin(
        attempts,
        and_(
            attempts.c.generation == generations.c.id,
            attempts.c.number == generations.c.attempt_count,
            attempts.c.end_time.is_(None),
        ),
    )
    .where(
        workers.c.pool == _POOL,
        workers.c.state.in_(["IDLE", "BUSY", "LOADING"]),
        workers.c.lease_expire_time > _NOW,
        or_(workers.c.drain_expire_time.is_(None), workers.c.drain_expire_time <= _NOW),
    )
)
_PREPARED = (
    select(generations.c.position, _OTHER.c.predicted_seconds, attempts.c.start_time)
    .join(workers, workers.c.prepared == generations.c.id)
    .join(_OTHER, _OTHER.c.id == workers.c.generation)
    .join(attempts, and_(attempts.c.generation == _OTHER.c.id, attempts.c.number == _OTHER.c.attempt_count))
    .where(workers.c.pool == _POOL)
)
