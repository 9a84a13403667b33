"""What each pool is asked to do: figures computed from the store alone, equal on every replica."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, and_, case, func, select

from wan22.v1 import inference_pb2, pool_pb2
from wan22_gateway.generation_messages import is_drained
from wan22_gateway.lifecycle import UNFINISHED, State, timestamp
from wan22_gateway.queue_view import view
from wan22_gateway.store import pools
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.generations import GenerationRow
from wan22_gateway.store.pools import PoolRow, WorkerRow
from wan22_gateway.store.schema import attempts, generations, identity

MAX_BUCKETS = 256


def pool_message(tx: Transaction, row: PoolRow, *, complete: bool) -> pool_pb2.Pool:
    """A pool with its workers and its demand; `complete` says that all its targets have been looked at."""
    workers = pools.workers_of(tx, row.name)
    return pool_pb2.Pool(
        name=row.name,
        variant=row.variant,
        model_version=row.model_version,
        max_workers=row.max_workers,
        default_for_variant=row.default_for_variant,
        distilled=row.distilled,
        worker_targets=json.loads(row.worker_targets),
        earlier_versions=sorted(pools.versions_of(row) - {row.model_version}),
        obstacle=row.obstacle,
        workers=[worker_message(tx, worker) for worker in workers],
        demand=_demand(tx, row, complete=complete),
    )


def worker_message(tx: Transaction, row: WorkerRow) -> pool_pb2.PoolWorker:
    """A worker as the gateway knows it."""
    message = pool_pb2.PoolWorker(
        name=row.name,
        uid=row.uid,
        incarnation=row.incarnation,
        pool=row.pool,
        address=row.address,
        state=inference_pb2.Worker.State.Value(row.state),
        bytes_left=row.bytes_total - row.bytes_loaded,
        generation=f"generations/{row.generation}" if row.generation else "",
        prepared=f"generations/{row.prepared}" if row.prepared else "",
        alive=row.lease_expire_time > tx.now,
        error=row.error,
        model_version=row.model_version or "",
    )
    if is_drained(tx, row):
        message.drain_expire_time.CopyFrom(timestamp(row.drain_expire_time))
    return message


def _demand(tx: Transaction, row: PoolRow, *, complete: bool) -> pool_pb2.Demand:
    pool = row.name
    of_pool = select(generations).where(generations.c.pool == pool)
    running = tx.execute(of_pool.where(generations.c.state == State.RUNNING).order_by(generations.c.position)).all()
    count_60s, mean_60s = _arrivals(tx, pool, 60)
    count_10m, mean_10m = _arrivals(tx, pool, 600)
    return pool_pb2.Demand(
        queued=_buckets(view(tx, pool).rows),
        running=[_running(tx, generation) for generation in running],
        arrivals_60s=count_60s,
        mean_predicted_seconds_60s=mean_60s,
        arrivals_10m=count_10m,
        mean_predicted_seconds_10m=mean_10m,
        store_epoch=tx.execute(select(identity.c.store_epoch)).scalar_one(),
        as_of_time=timestamp(tx.now),
        complete=complete,
        earlier=_earlier(tx, row),
    )


def _earlier(tx: Transaction, pool: PoolRow) -> list[pool_pb2.EarlierWork]:
    """What only workers of another version than the pool's can do, by version."""
    other = and_(generations.c.pool == pool.name, generations.c.model_version != pool.model_version)
    queued = case((generations.c.state == State.QUEUED, 1), else_=0)
    query = select(
        generations.c.model_version,
        func.sum(queued).label("queued"),
        func.sum(queued * generations.c.predicted_seconds).label("queued_seconds"),
        func.count().label("unfinished"),
    ).where(other, generations.c.state.in_(UNFINISHED))
    rows = tx.execute(query.group_by(generations.c.model_version).order_by(generations.c.model_version)).all()
    return [
        pool_pb2.EarlierWork(
            model_version=row.model_version,
            queued=int(row.queued),
            queued_seconds=float(row.queued_seconds),
            running=row.unfinished - int(row.queued),
        )
        for row in rows
    ]


def _buckets(queued: Sequence[Row[Any]]) -> list[pool_pb2.DemandBucket]:
    size = max(1, -(-len(queued) // MAX_BUCKETS))
    return [_bucket(queued[start : start + size]) for start in range(0, len(queued), size)]


def _bucket(part: Sequence[Row[Any]]) -> pool_pb2.DemandBucket:
    start_by = [row.start_by_time for row in part if row.start_by_time is not None]
    return pool_pb2.DemandBucket(
        count=len(part),
        predicted_seconds=sum(row.predicted_seconds for row in part),
        oldest_create_time=timestamp(min(row.create_time for row in part)),
        start_by_time=timestamp(min(start_by)) if start_by else None,
    )


def _running(tx: Transaction, row: GenerationRow) -> pool_pb2.RunningWork:
    attempt = select(attempts.c.start_time).where(
        attempts.c.generation == row.id, attempts.c.number == row.attempt_count
    )
    elapsed = (tx.now - tx.execute(attempt).scalar_one()) / 1_000_000
    return pool_pb2.RunningWork(
        worker=row.claimed_worker, predicted_seconds=row.predicted_seconds, elapsed_seconds=max(0.0, elapsed)
    )


def _arrivals(tx: Transaction, pool: str, seconds: int) -> tuple[int, float]:
    recent = generations.c.create_time > tx.now - seconds * 1_000_000
    query = select(func.count().label("arrivals"), func.avg(generations.c.predicted_seconds).label("mean"))
    row = tx.execute(query.where(generations.c.pool == pool, recent)).one()
    return row.arrivals, row.mean or 0.0
