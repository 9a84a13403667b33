"""Rows of generations: insert, look up, list, delete. States are changed by `lifecycle` alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, exists, func, insert, or_, select, update

from wan22.errors import AlreadyExists, FailedPrecondition, NotFound, Reason
from wan22.v1 import generation_pb2
from wan22_gateway import lifecycle
from wan22_gateway.lifecycle import FINAL, State
from wan22_gateway.results import recipe_key
from wan22_gateway.store import media, objects, turns, usage
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.schema import attempts, events, generations, labels, requests, workers

GenerationRow = Row[Any]
BATCH = 100
"""Most rows that one transaction of housekeeping changes: bounds how long others wait for it."""
REQUEST_ID_LIFE = 7 * 24 * 3600 * 1_000_000
"""Microseconds for which a request id stays taken after its generation was deleted."""


@dataclass(frozen=True)
class NewGeneration:
    """A checked request on its way into the queue."""

    id: str
    tenant: str
    request_id: str
    request_digest: str
    variant: str
    pool: str
    model_version: str
    parameters: bytes
    labels: dict[str, str]
    cut_texts: dict[str, int]
    siblings: list[str]
    """Ids of all generations of the request, by seed; empty where it made one."""
    predicted_seconds: float
    priority: int = 2
    """generation_pb2.Generation.Priority."""
    deadline: int | None = None
    start_by_time: int | None = None
    keep_for: int | None = None
    """Microseconds for which its video is kept; None for as long as the row."""
    inputs_digest: str = ""
    """Of all that the request decides of the video, see `reuse`."""
    media: tuple[str, ...] = ()
    """Ids of the images that it starts from."""


def find_request(tx: Transaction, tenant: str, request_id: str, digest: str) -> str | None:
    """The generation that an earlier call with this request id made, or None.

    Raises AlreadyExists when that call asked for something else.
    """
    key = and_(requests.c.tenant == tenant, requests.c.request_id == request_id)
    row = tx.execute(select(requests).where(key)).one_or_none()
    if row is None:
        return None
    if row.digest != digest:
        text = f"request_id {request_id!r} was used for another request (generations/{row.generation}): use a new id."
        raise AlreadyExists(text, reason=Reason.REQUEST_ID_REUSED, metadata={"generation": row.generation})
    return str(row.generation)


def insert_generation(tx: Transaction, new: NewGeneration) -> None:
    """Adds a QUEUED generation and takes its request id."""
    turns.queue_up(tx, new.pool, new.tenant)
    _insert(tx, new, state=State.QUEUED)
    lifecycle.accepted(tx, new.id)


def insert_answered(tx: Transaction, new: NewGeneration, made: GenerationRow) -> None:
    """Adds a generation that is SUCCEEDED at once by the video of an earlier one; that object has one more owner."""
    result = {name: getattr(made, name) for name in ("video_key", "video_size", "video_digest", "numerics_digest")}
    expire_time = None if new.keep_for is None else tx.now + new.keep_for
    origin = made.reused_from or made.id
    ends = {"end_time": tx.now, "video_expire_time": expire_time, "reused_from": origin}
    _insert(tx, new, state=State.SUCCEEDED, **result, **ends)
    lifecycle.answered(tx, get(tx, new.tenant, new.id))
    usage.add(tx, new.tenant, new.variant, generations=1, succeeded=1, reused=1)


def _insert(tx: Transaction, new: NewGeneration, **more: Any) -> None:
    row = {
        "id": new.id,
        "tenant": new.tenant,
        "variant": new.variant,
        "pool": new.pool,
        "model_version": new.model_version,
        "parameters": new.parameters,
        "labels": new.labels,
        "cut_texts": json.dumps(new.cut_texts, sort_keys=True),
        "siblings": json.dumps(new.siblings),
        "predicted_seconds": new.predicted_seconds,
        "create_time": tx.now,
        "priority": new.priority,
        "deadline": new.deadline,
        "start_by_time": new.start_by_time,
        "keep_for": new.keep_for,
        "inputs_digest": new.inputs_digest,
    }
    tx.execute(insert(generations).values(**row, **more))
    if new.labels:
        each = [{"generation": new.id, "key": key, "value": value} for key, value in new.labels.items()]
        tx.execute(insert(labels), each)
    media.refer(tx, new.tenant, new.id, new.media)
    if new.request_id:
        request = {"tenant": new.tenant, "request_id": new.request_id, "generation": new.id}
        tx.execute(insert(requests).values(**request, digest=new.request_digest, create_time=tx.now))


def get(tx: Transaction, tenant: str, generation: str) -> GenerationRow:
    """One row. Raises NotFound, also when it is another tenant's."""
    mine = and_(generations.c.id == generation, generations.c.tenant == tenant)
    row = tx.execute(select(generations).where(mine)).one_or_none()
    if row is None:
        raise NotFound(f"generations/{generation} does not exist: it was never made here, or it was deleted.")
    return row


def page(
    tx: Transaction,
    tenant: str,
    *,
    states: Sequence[State],
    variant: str,
    wanted_labels: dict[str, str],
    before: int | None,
    limit: int,
    oldest_first: bool = False,
) -> Sequence[GenerationRow]:
    """Up to `limit` rows, newest first, that come before the position `before`; or oldest first, behind it."""
    query = select(generations).where(generations.c.tenant == tenant)
    if states:
        query = query.where(generations.c.state.in_(states))
    if variant:
        query = query.where(generations.c.variant == variant)
    for key, value in wanted_labels.items():
        mine = and_(labels.c.generation == generations.c.id, labels.c.key == key)
        query = query.where(exists().where(mine, labels.c.value == value))
    position = generations.c.position
    if before is not None:
        query = query.where(position > before if oldest_first else position < before)
    return tx.execute(query.order_by(position if oldest_first else position.desc()).limit(limit)).all()


def last_origin(tx: Transaction, row: GenerationRow) -> Row[Any] | None:
    """From which step a generation's newest attempt went on, and why from none; None before the first."""
    newest = and_(attempts.c.generation == row.id, attempts.c.number == row.attempt_count)
    return tx.execute(select(attempts).where(newest)).one_or_none()


def events_after(tx: Transaction, generation: str, sequence: int) -> list[generation_pb2.GenerationEvent]:
    """The numbered events behind a sequence number, in order."""
    later = and_(events.c.generation == generation, events.c.sequence > sequence)
    rows = tx.execute(select(events.c.message).where(later).order_by(events.c.sequence)).scalars()
    return [generation_pb2.GenerationEvent.FromString(message) for message in rows]


def remove(tx: Transaction, row: GenerationRow) -> None:
    """Deletes a generation in a final state with all that it alone has. Raises FailedPrecondition in another state."""
    media.let_go(tx, row.id)
    deleted = delete(generations).where(generations.c.id == row.id, generations.c.state.in_(FINAL))
    if not tx.execute(deleted).rowcount:
        text = f"generations/{row.id} is {row.state}: cancel it first, or delete with force."
        raise FailedPrecondition(text, reason=Reason.GENERATION_UNFINISHED)
    tx.execute(update(requests).where(_request_of(row)).values(free_time=tx.now + REQUEST_ID_LIFE))
    _let_go(tx, row)
    tx.notify("garbage")
    tx.notify("deleted")
    tx.notify(f"generation/{row.id}")


def _request_of(row: GenerationRow) -> ColumnElement[bool]:
    return and_(requests.c.tenant == row.tenant, requests.c.generation == row.id)


def _let_go(tx: Transaction, row: GenerationRow) -> None:
    """Makes the video that a row had garbage, unless another row answers by it, too: that one has the same inputs."""
    if row.video_key is None:
        return
    same = and_(generations.c.tenant == row.tenant, generations.c.inputs_digest == row.inputs_digest)
    others = select(generations.c.id).where(same, generations.c.video_key == row.video_key).limit(1)
    if tx.execute(others).one_or_none() is None:
        objects.drop(tx, [row.video_key, recipe_key(row.video_key)])


def expire_videos(tx: Transaction) -> int:
    """Gives up the videos whose time is over; the rows stay as they are. Returns how many, at most BATCH."""
    over = and_(generations.c.video_expire_time <= tx.now, generations.c.video_key.is_not(None))
    rows = tx.execute(select(generations).where(over).order_by(generations.c.video_expire_time).limit(BATCH)).all()
    for row in rows:
        tx.execute(update(generations).where(generations.c.id == row.id).values(video_key=None))
        _let_go(tx, row)
    return len(rows)


def remove_old(tx: Transaction, keep_for: int) -> int:
    """Deletes generations that ended so many microseconds ago. Returns how many, at most BATCH."""
    old = select(generations).where(generations.c.end_time < tx.now - keep_for)
    rows = tx.execute(old.order_by(generations.c.end_time).limit(BATCH)).all()
    for row in rows:
        remove(tx, row)
    return len(rows)


def forget_requests(tx: Transaction) -> None:
    """Frees the request ids whose generations were deleted 7 days ago."""
    tx.execute(delete(requests).where(requests.c.free_time <= tx.now))


def count_queued(tx: Transaction) -> int:
    """Generations that wait, of all tenants."""
    query = select(func.count()).select_from(generations).where(generations.c.state == State.QUEUED)
    return int(tx.execute(query).scalar_one())


def claimed_queued(tx: Transaction, pool: str) -> Sequence[GenerationRow]:
    """A pool's QUEUED generations that a worker is about to start, or has prepared; these last."""
    prepared = workers.c.prepared == generations.c.id
    claimed = and_(workers.c.pool == pool, or_(workers.c.generation == generations.c.id, prepared))
    query = select(generations).join(workers, claimed).where(generations.c.state == State.QUEUED)
    return tx.execute(query.order_by(prepared, generations.c.position)).all()
