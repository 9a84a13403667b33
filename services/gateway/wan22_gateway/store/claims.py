"""Who runs what: claims bind a generation, a worker and an owning gateway under a lease, in one transaction each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sqlalchemy import BigInteger, Row, and_, bindparam, func, or_, select, true, update

from wan22.errors import DeadlineExceeded, Reason
from wan22.v1.generation_pb2 import Parameters
from wan22_gateway import lifecycle
from wan22_gateway.lifecycle import UNFINISHED, Fence, State, timestamp
from wan22_gateway.store import checkpoints, turns
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.schema import attempts, generations, pools, workers

PREPARE_SECONDS = 60.0
"""How long before its predicted end a running generation is joined by the next one: what is not bound yet can still be
overtaken by what is more urgent, and a prediction is not worth more."""


@dataclass(frozen=True)
class Claim:
    """One attempt that this process speaks for."""

    fence: Fence
    worker: str
    incarnation: str
    address: str


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)


def anything_to_do(tx: Transaction, resume_wait: float) -> bool:
    """Whether `claim_next` would claim or fail anything, as far as that can be seen without a lock."""
    return next(_pairs(tx, resume_wait), None) is not None or bool(overdue(tx))


def _pairs(tx: Transaction, resume_wait: float) -> Iterator[tuple[Row[Any], Row[Any]]]:
    """Yields generations in order of dispatch that a worker of their pool and version can take, and that worker.

    An idle worker comes first, and takes before all else what a busy one has prepared; where there is none, a busy one
    that will soon be free prepares the generation. One with a checkpoint goes to a worker of equal numerics. For
    `resume_wait` seconds after its worker was lost it waits for one, if the pool has one at all or one that still
    loads; then any worker may start it anew.
    """
    for (pool, version), idle in _alike(_idle(tx)).items():
        for row in chain(_prepared(tx, pool, version), _unclaimed(tx, pool, version)):
            taken_by = _fitting(tx, row, idle, resume_wait)
            if taken_by is not None:
                yield row, taken_by
    for (pool, version), willing in _alike(_free_soon(tx)).items():
        for row in _unclaimed(tx, pool, version):
            taken_by = _fitting(tx, row, willing, resume_wait)
            if taken_by is not None:
                yield row, taken_by


def _alike(free: Iterable[Row[Any]]) -> Mapping[tuple[str, str], Sequence[Row[Any]]]:
    """Workers by their pool and the version they hold: there are several versions while a pool's is replaced."""
    alike: defaultdict[tuple[str, str], list[Row[Any]]] = defaultdict(list)
    for worker in free:
        alike[worker.pool, worker.holds].append(worker)
    return alike


_NOW = bindparam("now", type_=BigInteger())
_TAKES_WORK = and_(
    workers.c.lease_expire_time > _NOW,
    or_(workers.c.drain_expire_time.is_(None), workers.c.drain_expire_time <= _NOW),
)
_FREE_WORKERS = select(workers, func.coalesce(workers.c.model_version, pools.c.model_version).label("holds")).join(
    pools, pools.c.name == workers.c.pool
)
"""Workers of the pools that there are, each with the version that it `holds`."""


def _idle(tx: Transaction) -> Sequence[Row[Any]]:
    return tx.execute(_IDLE, {"now": tx.now}).all()


_IDLE = _FREE_WORKERS.where(workers.c.state == "IDLE", workers.c.generation.is_(None), _TAKES_WORK).order_by(
    workers.c.pool, workers.c.name
)


def _free_soon(tx: Transaction) -> Sequence[Row[Any]]:
    """Workers that may prepare what comes after their running generation, those first that will be free first."""
    return tx.execute(_FREE_SOON, {"now": tx.now, "soon": tx.now + _microseconds(PREPARE_SECONDS)}).all()


_WILLING = and_(
    workers.c.state.in_(["IDLE", "BUSY"]),  # IDLE while it was not asked since it has started
    workers.c.prepared.is_(None),
    or_(workers.c.refuses_beside.is_(None), workers.c.refuses_beside != workers.c.generation),
    _TAKES_WORK,
)
_END = attempts.c.start_time + generations.c.predicted_seconds * 1_000_000
_FREE_SOON = (
    _FREE_WORKERS.join(
        generations, and_(generations.c.id == workers.c.generation, generations.c.state == State.RUNNING)
    )
    .join(attempts, and_(attempts.c.generation == generations.c.id, attempts.c.number == generations.c.claimed_attempt))
    .where(_WILLING, bindparam("soon", type_=BigInteger()) >= _END)
    .order_by(workers.c.pool, _END, workers.c.name)
)


def _unclaimed(tx: Transaction, pool: str, version: str) -> Iterator[Row[Any]]:
    for _, _, waiting in turns.waiting(tx, pool, version):
        yield tx.execute(select(generations).where(generations.c.position == waiting.key)).one()


def _prepared(tx: Transaction, pool: str, version: str) -> Sequence[Row[Any]]:
    """What waits beside a running generation although its turn has come."""
    beside = and_(workers.c.pool == pool, workers.c.prepared == generations.c.id)
    beside = and_(beside, generations.c.model_version == version)
    waits = and_(generations.c.state == State.QUEUED, generations.c.cancel_requested_time.is_(None))
    query = select(generations).join(workers, beside).where(waits)
    return tx.execute(query.order_by(generations.c.position)).all()


def _fitting(tx: Transaction, row: Row[Any], idle: Sequence[Row[Any]], resume_wait: float) -> Row[Any] | None:
    """The worker among free ones, best first, that should take a generation; None when it waits for another.

    One whose process died under it comes last: whether it is to blame shows elsewhere.
    """
    if row.requeue_time is not None:
        killed = and_(attempts.c.generation == row.id, attempts.c.outcome.in_(["died", "silent"]))
        uids = set(tx.execute(select(attempts.c.worker_uid).where(killed)).scalars())
        idle = sorted(idle, key=lambda worker: worker.uid in uids)
    made = checkpoints.newest(tx, row.id) if row.requeue_time is not None else ()
    if not made:
        return idle[0]
    numerics = made[0].numerics_digest
    equal = [worker for worker in idle if worker.numerics_digest == numerics]
    if equal:
        return equal[0]
    same = or_(workers.c.model_version.is_(None), workers.c.model_version == row.model_version)
    hoped_for = and_(workers.c.pool == row.pool, same, workers.c.numerics_digest.in_([numerics, ""]))
    waited = row.requeue_time <= tx.now - _microseconds(resume_wait)
    if waited or tx.execute(select(workers.c.name).where(hoped_for).limit(1)).one_or_none() is None:
        return idle[0]
    return None


def overdue(tx: Transaction) -> Sequence[Row[Any]]:
    """Unclaimed generations that can no longer make their deadline."""
    return [row for row in tx.execute(_OVERDUE, {"now": tx.now}) if is_overdue(tx, row)]


_OVERDUE = select(generations).where(
    generations.c.state == State.QUEUED, generations.c.start_by_time < _NOW, generations.c.claimed_worker.is_(None)
)


def is_overdue(tx: Transaction, row: Row[Any]) -> bool:
    """Whether a generation that has not started, or would go on from a checkpoint, can no longer make its deadline."""
    if row.start_by_time is None or row.start_by_time >= tx.now:
        return False
    return bool(row.deadline - (row.deadline - row.start_by_time) * _share_left(tx, row) < tx.now)


def _share_left(tx: Transaction, row: Row[Any]) -> float:
    """How much of a generation's work is still to be done: what its newest checkpoint has is not."""
    made = checkpoints.newest(tx, row.id) if row.attempt_count else ()
    if not made:
        return 1.0
    step: int = made[0].step
    return 1.0 - step / Parameters.FromString(row.parameters).num_inference_steps


def deadline_missed(tx: Transaction, row: Row[Any]) -> DeadlineExceeded:
    """What is told of one that is overdue."""
    text = f"generations/{row.id} can no longer end by {timestamp(row.deadline).ToJsonString()}: it still waits, "
    text += f"and is predicted to take {row.predicted_seconds * _share_left(tx, row):.0f} s."
    return DeadlineExceeded(text, reason=Reason.DEADLINE_MISSED)


def fail_overdue(tx: Transaction) -> None:
    """Ends what can no longer make its deadline, before a worker spends time on it."""
    for row in overdue(tx):
        lifecycle.fail_waiting(tx, row.id, deadline_missed(tx, row))


def claim_next(tx: Transaction, owner: str, lease_seconds: float, resume_wait: float) -> Claim | None:
    """Claims the next pair for an owner; None when there is none. What is too late for its deadline fails first.

    A generation that a busy worker had prepared is thereby taken back from it: its fence there is old. What somebody
    else is writing about at the moment is left for the next look.
    """
    fail_overdue(tx)
    free = (pair for pair in _pairs(tx, resume_wait) if _lock(tx, *pair))
    pair = next(free, None)
    if pair is None:
        return None
    row, worker = pair
    turns.charge(tx, row)
    fence = Fence(row.id, row.attempt_count + 1, row.owner_epoch + 1)
    claim = {
        "claimed_worker": worker.name,
        "claimed_incarnation": worker.incarnation,
        "claimed_attempt": fence.attempt,
        "owner": owner,
        "owner_epoch": fence.owner_epoch,
        "lease_expire_time": tx.now + _microseconds(lease_seconds),
    }
    tx.execute(update(generations).where(generations.c.id == row.id).values(claim))
    tx.execute(update(workers).where(workers.c.prepared == row.id).values(prepared=None))
    place = {"generation": row.id} if worker.generation is None else {"prepared": row.id}
    tx.execute(update(workers).where(workers.c.name == worker.name).values(place))
    tx.notify(f"generation/{row.id}")
    return Claim(fence, worker.name, worker.incarnation, worker.address)


def _lock(tx: Transaction, row: Row[Any], worker: Row[Any]) -> bool:
    """Keeps everybody else from both rows until the commit; False when somebody is writing to one of them."""
    # Not found here as it was found before means: changed since, by a write that decides on nothing but its own row.
    same = and_(generations.c.id == row.id, generations.c.owner_epoch == row.owner_epoch)
    mine = select(generations.c.id).where(same).with_for_update(skip_locked=True)
    its = select(workers.c.name).where(workers.c.name == worker.name).with_for_update(skip_locked=True)
    return all(tx.execute(query).one_or_none() is not None for query in (mine, its))


def is_prepared(tx: Transaction, claim: Claim) -> bool:
    """Whether the claim is for what comes after the worker's running generation."""
    beside = and_(workers.c.name == claim.worker, workers.c.prepared == claim.fence.generation)
    return tx.execute(select(workers.c.name).where(beside)).one_or_none() is not None


def is_stale(tx: Transaction, claim: Claim) -> bool:
    """Whether the worker has no business with the attempt any more, whoever owns it."""
    row = claimed_row(tx, claim.fence.generation)
    return row is None or (row.claimed_worker, row.claimed_attempt) != (claim.worker, claim.fence.attempt)


def renew(tx: Transaction, owner: str, fences: Iterable[Fence], lease_seconds: float) -> set[Fence]:
    """Prolongs the leases of the given fences and returns those that are still this owner's and had not lapsed."""
    kept = set()
    for fence in fences:
        mine = and_(fence.condition, generations.c.owner == owner, generations.c.lease_expire_time > tx.now)
        values = {"lease_expire_time": tx.now + _microseconds(lease_seconds)}
        if tx.execute(update(generations).where(mine).values(values)).rowcount:
            kept.add(fence)
    return kept


def take_over(
    tx: Transaction, owner: str, lease_seconds: float, *, everything: bool = False, own: bool = False
) -> list[Claim]:
    """Takes every claimed attempt whose lease has lapsed under a new owner epoch.

    `everything` is for a process that knows that no other owner lives, because it holds the store's lock: it takes all.
    `own` is for one that has let go of all that it owned: it takes that too. What its owner is writing about at the
    moment has not lapsed, or will be there at the next look.
    """
    claimed = and_(generations.c.state.in_(UNFINISHED), generations.c.claimed_worker.is_not(None))
    lapsed = true() if everything else generations.c.lease_expire_time <= tx.now
    if own:
        lapsed = or_(lapsed, generations.c.owner == owner)
    taken = []
    query = select(generations).where(claimed, lapsed).order_by(generations.c.position)
    for row in tx.execute(query.with_for_update(skip_locked=True)).all():
        fence = Fence(row.id, row.claimed_attempt, row.owner_epoch + 1)
        values = {
            "owner": owner,
            "owner_epoch": fence.owner_epoch,
            "lease_expire_time": tx.now + _microseconds(lease_seconds),
        }
        tx.execute(update(generations).where(generations.c.id == row.id).values(values))
        address = tx.execute(select(workers.c.address).where(workers.c.name == row.claimed_worker)).scalar_one()
        taken.append(Claim(fence, row.claimed_worker, row.claimed_incarnation, address))
    return taken


@dataclass(frozen=True)
class Loss:
    """Why a claim's worker is gone for good; `died` when its process is known to have ended."""

    reason: str
    died: bool
    silent: bool = False
    """It does not answer; whether its process has ended shows when it answers again."""


def loss(tx: Transaction, claim: Claim) -> Loss | None:
    """The loss of a claim's worker, or None while it may still answer."""
    row = tx.execute(select(workers).where(workers.c.name == claim.worker)).one_or_none()
    if row is None:
        return Loss(f"{claim.worker} was removed", died=False)
    if row.incarnation != claim.incarnation:
        return Loss(f"{claim.worker} ended and was started again", died=True)
    if row.lost:
        return Loss(f"{claim.worker} does not answer", died=False, silent=True)
    return None


def claimed_row(tx: Transaction, generation: str) -> Row[Any] | None:
    """The generation's row, if it is claimed by anybody: what a worker that holds an attempt of it is compared to."""
    claimed = and_(generations.c.id == generation, generations.c.claimed_worker.is_not(None))
    return tx.execute(select(generations).where(claimed)).one_or_none()
