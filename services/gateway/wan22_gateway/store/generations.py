"""Rows of generations: insert, look up, list, delete. States are changed by `lifecycle` alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from sqlalchemy import ColumnElement, Row, and_, bindparam, delete, exists, func, or_, select, update

from wan22.errors import AlreadyExists, FailedPrecondition, NotFound, Reason
from wan22.v1 import generation_pb2
from wan22_gateway import lifecycle
from wan22_gateway.lifecycle import FINAL, State
from wan22_gateway.results import recipe_key
from wan22_gateway.store import media, objects, turns, usage, webhooks
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.facts import Accepted
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
    webhook_url: str | None = None
    """Who is told of its end, in place of its tenant's webhook."""
    asked_texts: bytes | None = None
    """generation_pb2.AskedTexts, where the prompt hook has put others in their place."""
    preview_interval: int | None = None
    """Steps from one preview to the next; None is no previews."""
    media: tuple[str, ...] = ()
    """Ids of the images that it starts from."""

    @property
    def request(self) -> tuple[str, str]:
        """Tenant and request id, which together are unique where there is an id."""
        return self.tenant, self.request_id


@dataclass(frozen=True, slots=True)
class Made:
    """What an earlier call with a request id has made."""

    generation: str
    digest: str
    """Of that call's request."""

    def repeated(self, request_id: str, digest: str) -> str:
        """The generation, for a call that asks for the same. Raises AlreadyExists for any other."""
        if self.digest == digest:
            return self.generation
        text = f"request_id {request_id!r} was used for another request (generations/{self.generation}): use a new id."
        raise AlreadyExists(text, reason=Reason.REQUEST_ID_REUSED, metadata={"generation": self.generation})


def find_request(tx: Transaction, tenant: str, request_id: str, digest: str) -> str | None:
    """The generation that an earlier call with this request id made, or None.

    Raises AlreadyExists when that call asked for something else.
    """
    made = find_requests(tx, [(tenant, request_id)]).get((tenant, request_id))
    return None if made is None else made.repeated(request_id, digest)


def find_requests(tx: Transaction, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Made]:
    """What earlier calls with these tenants and request ids have made."""
    found: dict[tuple[str, str], Made] = {}
    for tenant in {tenant for tenant, _ in keys}:
        ids = [request_id for owner, request_id in keys if owner == tenant]
        rows = tx.execute(_REQUESTS, {"tenant": tenant, "ids": ids}).all()
        found |= {(tenant, row.request_id): Made(row.generation, row.digest) for row in rows}
    return found


_REQUESTS = select(requests).where(
    requests.c.tenant == bindparam("tenant"), requests.c.request_id.in_(bindparam("ids", expanding=True))
)


def insert(tx: Transaction, new: Sequence[NewGeneration]) -> None:
    """Adds QUEUED generations, each with its first event, and takes their request ids."""
    if not new:
        return
    for pool, tenant in dict.fromkeys((generation.pool, generation.tenant) for generation in new):
        turns.queue_up(tx, pool, tenant)
    tx.insert_many(generations, [{**_row(generation, tx.now), **_BORN} for generation in new])
    _refer(tx, new)
    lifecycle.accepted(tx, [generation.id for generation in new])
    for (variant, pool), count in Counter((generation.variant, generation.pool) for generation in new).items():
        tx.note(Accepted(variant, pool, count))


def insert_answered(tx: Transaction, new: NewGeneration, made: GenerationRow) -> None:
    """Adds a generation that is SUCCEEDED at once by the video of an earlier one; that object has one more owner."""
    result = {name: getattr(made, name) for name in ("video_key", "video_size", "video_digest", "numerics_digest")}
    expire_time = None if new.keep_for is None else tx.now + new.keep_for
    origin = made.reused_from or made.id
    ends = {"end_time": tx.now, "video_expire_time": expire_time, "reused_from": origin}
    tx.execute(_INSERT, {**_row(new, tx.now), "state": State.SUCCEEDED, **result, **ends})
    _refer(tx, [new])
    lifecycle.answered(tx, get(tx, new.tenant, new.id))
    usage.add(tx, new.tenant, new.variant, generations=1, succeeded=1, reused=1)


_INSERT = generations.insert()


def _refer(tx: Transaction, new: Sequence[NewGeneration]) -> None:
    """Takes the request ids of rows that were just inserted, and adds their labels and what images they refer to."""
    taken = [
        {
            "tenant": generation.tenant,
            "request_id": generation.request_id,
            "generation": generation.id,
            "digest": generation.request_digest,
            "create_time": tx.now,
        }
        for generation in new
        if generation.request_id
    ]
    tx.insert_many(requests, taken)
    labelled = [
        {"generation": generation.id, "key": key, "value": value}
        for generation in new
        for key, value in generation.labels.items()
    ]
    tx.insert_many(labels, labelled)
    for generation in new:
        media.refer(tx, generation.tenant, generation.id, generation.media)


def _row(new: NewGeneration, now: int) -> dict[str, Any]:
    return {
        "id": new.id,
        "tenant": new.tenant,
        "variant": new.variant,
        "pool": new.pool,
        "model_version": new.model_version,
        "parameters": new.parameters,
        "labels": new.labels,
        "cut_texts": json.dumps(new.cut_texts, sort_keys=True) if new.cut_texts else "{}",
        "siblings": json.dumps(new.siblings) if new.siblings else "[]",
        "predicted_seconds": new.predicted_seconds,
        "create_time": now,
        "priority": new.priority,
        "deadline": new.deadline,
        "start_by_time": new.start_by_time,
        "keep_for": new.keep_for,
        "inputs_digest": new.inputs_digest,
        "webhook_url": new.webhook_url,
        "asked_texts": new.asked_texts,
        "preview_interval": new.preview_interval,
    }


def get(tx: Transaction, tenant: str, generation: str) -> GenerationRow:
    """One row. Raises NotFound, also when it is another tenant's."""
    if "\0" in generation:
        raise missing(generation)  # PostgreSQL takes no such text
    mine = and_(generations.c.id == generation, generations.c.tenant == tenant)
    row = tx.execute(select(generations).where(mine)).one_or_none()
    if row is None:
        raise missing(generation)
    return row


def missing(generation: str) -> NotFound:
    """What is said of a generation that is not there, or is another tenant's."""
    return NotFound(f"generations/{generation} does not exist: it was never made here, or it was deleted.")


def get_many(tx: Transaction, ids: Sequence[str]) -> Sequence[GenerationRow]:
    """Those of these that there are, of whatever tenant, in any order."""
    return tx.execute(select(generations).where(generations.c.id.in_(ids))).all() if ids else ()


def untouched(tx: Transaction, new: Mapping[str, NewGeneration]) -> list[GenerationRow]:
    """The rows of those of these, by id, to which nothing has happened since they were queued.

    No more is read than what their places depend on.
    """
    if not new:
        return []
    rows = tx.execute(_PLACES_OF_NEW, {"ids": list(new)}).mappings().all()
    places = [row for row in rows if (row["state"], row["last_sequence"]) == _AS_BORN and not row[_CANCELLING]]
    born = [{**_BLANK, **_row(new[place["id"]], place["create_time"]), **place} for place in places]
    return [cast("GenerationRow", SimpleNamespace(**row)) for row in born]


def queued(tx: Transaction, ids: Sequence[str]) -> list[Row[Any]]:
    """Of those of these that are QUEUED what their places depend on, in any order."""
    return [row for row in tx.execute(_PLACES, {"ids": ids}).all() if row.state == State.QUEUED]


PLACED = (
    generations.c.id,
    generations.c.pool,
    generations.c.model_version,
    generations.c.position,
    generations.c.tenant,
    generations.c.priority,
    generations.c.claimed_worker,
    generations.c.cancel_requested_time,
    generations.c.attempt_count,
)
"""What a place in the queue depends on."""
_BORN = {"state": State.QUEUED, "last_sequence": lifecycle.FIRST_SEQUENCE}
_AS_BORN = tuple(_BORN.values())
_CANCELLING = generations.c.cancel_requested_time.name
_BLANK = {column.name: getattr(column.default, "arg", None) for column in generations.c} | _BORN
# By id alone: asked for those QUEUED, too, SQLite would look through all that are.
_PLACES = select(*PLACED, generations.c.state).where(generations.c.id.in_(bindparam("ids", expanding=True)))
_PLACES_OF_NEW = _PLACES.add_columns(generations.c.create_time, generations.c.last_sequence)


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
    if "\0" in variant or any("\0" in key + value for key, value in wanted_labels.items()):
        return []  # no row has such a text, and PostgreSQL does not take it
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
    webhooks.forget_texts(tx, row.id)
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
    return int(tx.execute(_COUNT_QUEUED).scalar_one())


_COUNT_QUEUED = select(func.count()).select_from(generations).where(generations.c.state == State.QUEUED)


def claimed_queued(tx: Transaction, pool: str) -> Sequence[GenerationRow]:
    """A pool's QUEUED generations that a worker is about to start, or has prepared; these last."""
    prepared = workers.c.prepared == generations.c.id
    claimed = and_(workers.c.pool == pool, or_(workers.c.generation == generations.c.id, prepared))
    query = select(generations).join(workers, claimed).where(generations.c.state == State.QUEUED)
    return tx.execute(query.order_by(prepared, generations.c.position)).all()
