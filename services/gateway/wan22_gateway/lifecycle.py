"""A generation's states and every transition between them; no other module writes `state`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2
from sqlalchemy import ColumnElement, Row, and_, case, func, insert, select, update

from wan22.errors import InvalidRequest, Wan22Error
from wan22.status import to_status
from wan22.v1 import generation_pb2
from wan22_gateway.store import checkpoints, previews, turns, webhooks
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.facts import AttemptLost, Ended, Started
from wan22_gateway.store.schema import attempts, events, generations, workers


class State(StrEnum):
    """generation_pb2.Generation.State, by name."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


UNFINISHED = frozenset({State.QUEUED, State.RUNNING})
FINAL = frozenset(State) - UNFINISHED
NEXT: Mapping[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.FAILED, State.CANCELLED}),
    State.RUNNING: frozenset({State.QUEUED, State.SUCCEEDED, State.FAILED, State.CANCELLED}),
}
"""From each unfinished state, where it may go."""


@dataclass(frozen=True)
class Fence:
    """Who writes: an attempt of a generation and the epoch of its owner. An older fence writes nothing."""

    generation: str
    attempt: int
    owner_epoch: int

    @property
    def condition(self) -> ColumnElement[bool]:
        """True for the generation's row while this fence is the newest and its claim stands."""
        return and_(
            generations.c.id == self.generation,
            generations.c.claimed_worker.is_not(None),
            generations.c.claimed_attempt == self.attempt,
            generations.c.owner_epoch == self.owner_epoch,
        )


@dataclass(frozen=True)
class StoredVideo:
    """A result object that is durable."""

    key: str
    size_bytes: int
    digest: str
    numerics_digest: str = ""
    """Of what made it; empty where that is not known."""


def timestamp(microseconds: int) -> Timestamp:
    """The store's time as a message."""
    message = Timestamp()
    message.FromMicroseconds(microseconds)
    return message


def microseconds(given: Timestamp, field: str) -> int:
    """A caller's time as the store's. Raises InvalidRequest for one that the protocol does not allow."""
    try:
        return given.ToMicroseconds()
    except ValueError:
        text = f"{field} is {given.seconds} s and {given.nanos} ns: use a time of the years 1 to 9999."
        raise InvalidRequest(text, field=field) from None


def append_event(tx: Transaction, generation: str, **event: Any) -> None:
    """Numbers and stores one event of a generation, and wakes its watchers."""
    bump = update(generations).where(generations.c.id == generation)
    bump = bump.values(last_sequence=generations.c.last_sequence + 1)
    sequence = tx.execute(bump.returning(generations.c.last_sequence)).scalar_one()
    message = generation_pb2.GenerationEvent(sequence=sequence, event_time=timestamp(tx.now), **event)
    row = {"generation": generation, "sequence": sequence, "message": message.SerializeToString()}
    tx.execute(insert(events).values(row))
    tx.notify(f"generation/{generation}")


TOLD = (
    generations.c.id,
    generations.c.variant,
    generations.c.pool,
    generations.c.create_time,
    generations.c.start_time,
)
"""What a move tells of a row."""
FIRST_SEQUENCE = 1
"""`last_sequence` of a row that is inserted: its first event's."""


def accepted(tx: Transaction, born: Sequence[str]) -> None:
    """Records the birth of rows that were just inserted as QUEUED: their first events."""
    change = generation_pb2.StateChange(state=generation_pb2.Generation.QUEUED)
    event = generation_pb2.GenerationEvent(
        sequence=FIRST_SEQUENCE, event_time=timestamp(tx.now), state_change=change
    ).SerializeToString()
    rows = [{"generation": name, "sequence": FIRST_SEQUENCE, "message": event} for name in born]
    tx.insert_many(events, rows)
    for name in born:
        tx.notify(f"generation/{name}")
    tx.notify("queue")


def answered(tx: Transaction, row: Row[Any]) -> None:
    """Records the birth of a row that was just inserted as SUCCEEDED: an earlier video is its result."""
    append_event(tx, row.id, state_change=_success(row.video_size, row.video_digest, row.video_expire_time))
    webhooks.announce(tx, row.id)
    tx.note(Ended(row.variant, row.pool, State.SUCCEEDED.value, None))


def _success(size_bytes: int, digest: str, expire_time: int | None) -> generation_pb2.StateChange:
    video = generation_pb2.Video(size_bytes=size_bytes, digest=digest)
    if expire_time is not None:
        video.expire_time.CopyFrom(timestamp(expire_time))
    return generation_pb2.StateChange(state=generation_pb2.Generation.SUCCEEDED, video=video)


def _move(
    tx: Transaction,
    condition: ColumnElement[bool],
    state: State,
    change: generation_pb2.StateChange | None = None,
    **values: Any,
) -> str | None:
    """Moves one row, if the condition holds and the move is allowed from where it is. Returns its id if it moved."""
    sources = [source for source, targets in NEXT.items() if state in targets]
    statement = update(generations).where(condition, generations.c.state.in_(sources)).values(state=state, **values)
    row = tx.execute(statement.returning(*TOLD)).one_or_none()
    moved: str | None = None
    if row is not None:
        moved = row.id
        if state in FINAL:
            checkpoints.drop_all(tx, row.id)
            previews.drop(tx, row.id)
            turns.settle(tx, row.id)
            webhooks.announce(tx, row.id)
            ran = None if row.start_time is None else (tx.now - row.start_time) / 1_000_000
            tx.note(Ended(row.variant, row.pool, state.value, ran))
        elif state == State.QUEUED:
            tx.note(AttemptLost(row.variant, row.pool))
        elif row.start_time == tx.now:
            tx.note(Started(row.variant, row.pool, (tx.now - row.create_time) / 1_000_000))
        change = change or generation_pb2.StateChange()
        change.state = generation_pb2.Generation.State.Value(state)
        append_event(tx, row.id, state_change=change)
        tx.notify("queue")
    return moved


def is_newest(tx: Transaction, fence: Fence) -> bool:
    """Whether a fence is still the one that may write."""
    return tx.execute(select(generations.c.id).where(fence.condition)).one_or_none() is not None


def note_restart(tx: Transaction, fence: Fence, reason: str) -> None:
    """Records why a checkpoint was given up: told at the start of an attempt that therefore begins at step 0."""
    tx.execute(update(generations).where(fence.condition).values(restart_reason=reason))


def start(
    tx: Transaction,
    fence: Fence,
    worker: str,
    worker_uid: str,
    *,
    resumed_step: int = 0,
    restart_reason: str = "",
) -> bool:
    """QUEUED -> RUNNING: the worker has accepted the attempt. True also when that is recorded already.

    `resumed_step` is that of the checkpoint it goes on from; at 0 what is kept of earlier attempts is given up, for
    `restart_reason`.
    """
    columns = (generations.c.state, generations.c.start_time, generations.c.restart_reason)
    row = tx.execute(select(*columns).where(fence.condition)).one_or_none()
    if row is None or row.state in FINAL:
        return False
    if row.state == State.RUNNING:
        return True
    started = tx.now if row.start_time is None else row.start_time
    values: dict[str, Any] = {"attempt_count": fence.attempt, "start_time": started, "restart_reason": ""}
    _move(tx, fence.condition, State.RUNNING, **values)
    origin: dict[str, Any] = {
        "worker": worker,
        "resumed_step": resumed_step,
        "restart_reason": "" if resumed_step else restart_reason or row.restart_reason,
    }
    attempt = {"generation": fence.generation, "number": fence.attempt, "worker_uid": worker_uid, **origin}
    tx.execute(insert(attempts).values(**attempt, start_time=tx.now))
    told = generation_pb2.AttemptStart(attempt=fence.attempt, **origin)
    if not resumed_step:
        checkpoints.drop_all(tx, fence.generation)
        previews.drop(tx, fence.generation)
    append_event(tx, fence.generation, attempt_start=told)
    return True


def progress(tx: Transaction, fence: Fence, message: generation_pb2.Progress) -> bool:
    """Records how far a RUNNING attempt is, and what it does to need less memory. False when the fence is old."""
    running = and_(fence.condition, generations.c.state == State.RUNNING)
    values = {"progress": message.SerializeToString()}
    if message.HasField("economy"):
        values["economy"] = message.economy.SerializeToString()
    statement = update(generations).where(running).values(values)
    if tx.execute(statement.returning(generations.c.id)).one_or_none() is None:
        return False
    append_event(tx, fence.generation, progress=message)
    return True


def preview(tx: Transaction, fence: Fence, message: generation_pb2.Preview) -> bool:
    """Shows watchers of a RUNNING attempt what it is making; of the state nothing changes. False when the fence is old.

    The row is locked, so that no preview is written beside the end of the generation, which drops it.
    """
    running = select(generations.c.id).where(fence.condition, generations.c.state == State.RUNNING)
    if tx.execute(running.with_for_update()).one_or_none() is None:
        return False
    previews.put(tx, fence.generation, message)
    return True


def succeed(tx: Transaction, fence: Fence, video: StoredVideo) -> bool:
    """RUNNING -> SUCCEEDED with its one video. False when the fence is old or another final state came first."""
    keep_for = tx.execute(select(generations.c.keep_for).where(fence.condition)).scalar_one_or_none()
    expire_time = None if keep_for is None else tx.now + keep_for
    values = {
        "video_key": video.key,
        "video_size": video.size_bytes,
        "video_digest": video.digest,
        "video_expire_time": expire_time,
        "numerics_digest": video.numerics_digest,
    }
    change = _success(video.size_bytes, video.digest, expire_time)
    if _move(tx, fence.condition, State.SUCCEEDED, change, end_time=tx.now, progress=None, **values) is None:
        return False
    _end_attempt(tx, fence, "succeeded")
    return True


def fail(tx: Transaction, fence: Fence, error: Wan22Error | status_pb2.Status) -> bool:
    """QUEUED or RUNNING -> FAILED for good. False when the fence is old or another final state came first."""
    status = to_status(error) if isinstance(error, Wan22Error) else error
    change = generation_pb2.StateChange(error=status)
    values = {"end_time": tx.now, "progress": None, "error": status.SerializeToString()}
    if _move(tx, fence.condition, State.FAILED, change, **values) is None:
        return False
    _end_attempt(tx, fence, "failed")
    return True


def fail_waiting(tx: Transaction, generation: str, error: Wan22Error) -> bool:
    """QUEUED -> FAILED for one that no worker was claimed for. False when that is over."""
    status = to_status(error)
    unclaimed = and_(generations.c.id == generation, generations.c.claimed_worker.is_(None))
    waiting = and_(unclaimed, generations.c.state == State.QUEUED)
    values = {"end_time": tx.now, "error": status.SerializeToString()}
    return _move(tx, waiting, State.FAILED, generation_pb2.StateChange(error=status), **values) is not None


def cancelled(tx: Transaction, fence: Fence) -> bool:
    """QUEUED or RUNNING -> CANCELLED: the worker has stopped it, or is lost. False when something else came first."""
    if _move(tx, fence.condition, State.CANCELLED, end_time=tx.now, progress=None) is None:
        return False
    _end_attempt(tx, fence, "cancelled")
    return True


def request_cancel(tx: Transaction, generation: str) -> None:
    """Marks a generation for cancelling; an unclaimed one is CANCELLED at once, a finished one stays as it is."""
    unfinished = and_(generations.c.id == generation, generations.c.state.in_(UNFINISHED))
    first = and_(unfinished, generations.c.cancel_requested_time.is_(None))
    tx.execute(update(generations).where(first).values(cancel_requested_time=tx.now))
    _move(tx, and_(unfinished, generations.c.claimed_worker.is_(None)), State.CANCELLED, end_time=tx.now)
    tx.notify(f"generation/{generation}")


def note_end(tx: Transaction, fence: Fence, outcome: str) -> None:
    """Records how an attempt that made no checkpoint lost its worker, and how far it had come, as evidence."""
    if not is_newest(tx, fence):
        return
    reached = select(generations.c.progress).where(fence.condition).scalar_subquery()
    values = {"outcome": outcome, "end_time": tx.now, "progress": reached}
    tx.execute(update(attempts).where(_attempt_row(fence)).values(values))


def requeue(tx: Transaction, fence: Fence, reason: str) -> bool:
    """RUNNING -> QUEUED: the worker is lost; the generation keeps its place. False when the fence is old."""
    if _move(tx, fence.condition, State.QUEUED, progress=None, requeue_time=tx.now) is None:
        return False
    ended = generation_pb2.AttemptEnd(attempt=fence.attempt, reason=reason)
    append_event(tx, fence.generation, attempt_end=ended)
    _end_attempt(tx, fence, "lost")
    return True


def release_claim(tx: Transaction, fence: Fence) -> None:
    """Gives a still QUEUED generation and its worker back to the dispatcher; the attempt never was one.

    What the worker has prepared beside it is next there.
    """
    released = update(generations).where(fence.condition).values(claimed_worker=None, owner=None)
    if tx.execute(released.returning(generations.c.id)).one_or_none() is None:
        return
    free = and_(workers.c.state == "BUSY", workers.c.prepared.is_(None))
    state = case((free, "IDLE"), else_=workers.c.state)  # until the worker says so itself
    freed = update(workers).where(workers.c.generation == fence.generation)
    tx.execute(freed.values(generation=workers.c.prepared, prepared=None, state=state))
    tx.execute(update(workers).where(workers.c.prepared == fence.generation).values(prepared=None))
    tx.notify("queue")


def _attempt_row(fence: Fence) -> ColumnElement[bool]:
    return and_(attempts.c.generation == fence.generation, attempts.c.number == fence.attempt)


def _end_attempt(tx: Transaction, fence: Fence, outcome: str) -> None:
    outcome_of = func.coalesce(attempts.c.outcome, outcome)  # what was noted before stays
    tx.execute(update(attempts).where(_attempt_row(fence)).values(end_time=tx.now, outcome=outcome_of))
    release_claim(tx, fence)
