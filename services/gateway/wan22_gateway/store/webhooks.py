"""Rows of webhooks and of deliveries: announced with the end of a generation, claimed by one process at a time."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2
from sqlalchemy import Row, and_, delete, func, insert, or_, select, update

from wan22.errors import FailedPrecondition, NotFound, Reason
from wan22.status import from_status
from wan22.v1 import generation_pb2
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.schema import deliveries, generations, webhooks

WebhookRow = Row[Any]
DeliveryRow = Row[Any]
TOPIC = "webhooks"
BACKOFF = (5, 30, 120, 600, 1800, 7200, 18_000, 36_000)
"""Seconds between tries: quick at first, 19 hours in all, so that a receiver may be away for a night."""
PREVIOUS_SECONDS = 24 * 3600
"""How long a replaced secret signs beside the new one."""
LONGEST_RETRY_AFTER = 24 * 3600
PER_TENANT = 4
"""Most deliveries of one tenant that are tried at once: a slow receiver delays nobody else's."""
KEPT_SECONDS = {"DELIVERED": 7 * 24 * 3600, "DEAD": 30 * 24 * 3600}
"""How long a delivery that is over is shown."""


def get(tx: Transaction, tenant: str) -> WebhookRow:
    """A tenant's webhook. Raises NotFound."""
    row = tx.execute(select(webhooks).where(webhooks.c.tenant == tenant)).one_or_none()
    if row is None:
        raise NotFound(f"tenants/{tenant} has no webhook: an administrator makes one.")
    return row


def check_secret(tx: Transaction, tenant: str) -> None:
    """Raises FailedPrecondition (NO_WEBHOOK) unless a tenant has a secret to sign by."""
    if tx.execute(select(webhooks.c.tenant).where(webhooks.c.tenant == tenant)).one_or_none() is None:
        text = "webhook_url is given, but there is no secret to sign by: an administrator makes one for the tenant by "
        raise FailedPrecondition(f"{text}`wan22 admin webhooks apply`.", reason=Reason.NO_WEBHOOK)


def list_all(tx: Transaction) -> Sequence[WebhookRow]:
    """Every webhook, by tenant."""
    return tx.execute(select(webhooks).order_by(webhooks.c.tenant)).all()


def apply(
    tx: Transaction, tenant: str, *, url: str, include_prompt: bool, secret: str, rotate: bool
) -> tuple[WebhookRow, bool]:
    """Creates or changes a webhook; says whether it has taken the new secret, as a new or a rotated one does."""
    spec: dict[str, Any] = {"url": url, "include_prompt": include_prompt}
    before = tx.execute(select(webhooks).where(webhooks.c.tenant == tenant)).one_or_none()
    if before is None:
        tx.execute(insert(webhooks).values(tenant=tenant, secret=secret, secret_create_time=tx.now, **spec))
        return get(tx, tenant), True
    if rotate:
        until = tx.now + PREVIOUS_SECONDS * 1_000_000
        spec |= {"previous_secret": before.secret, "previous_secret_expire_time": until}
        spec |= {"secret": secret, "secret_create_time": tx.now}
    tx.execute(update(webhooks).where(webhooks.c.tenant == tenant).values(spec))
    return get(tx, tenant), rotate


def remove(tx: Transaction, tenant: str) -> None:
    """Deletes a tenant's webhook; what is still to be delivered cannot be signed, and is DEAD."""
    tx.execute(delete(webhooks).where(webhooks.c.tenant == tenant))
    waiting = and_(deliveries.c.tenant == tenant, deliveries.c.state == "PENDING")
    gone = {"state": "DEAD", "end_time": tx.now, "last_error": "The webhook was removed."}
    tx.execute(update(deliveries).where(waiting).values(gone))


def announce(tx: Transaction, generation: str) -> None:
    """Adds the delivery of a generation that has just ended, where its tenant has a webhook and there is an address."""
    ended = select(generations, webhooks.c.url, webhooks.c.include_prompt)
    ended = ended.join(webhooks, webhooks.c.tenant == generations.c.tenant).where(generations.c.id == generation)
    row = tx.execute(ended).one_or_none()
    if row is None or not (url := row.webhook_url or row.url):
        return
    kind = f"generation.{row.state.lower()}"
    body = {"type": kind, "timestamp": _time(tx.now), "data": _data(row)}
    values = {
        "id": f"msg_{uuid.uuid4().hex}",
        "tenant": row.tenant,
        "generation": row.id,
        "url": url,
        "type": kind,
        "payload": json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(),
        "state": "PENDING",
        "create_time": tx.now,
        "tries_left": len(BACKOFF) + 1,
        "next_time": tx.now,
    }
    tx.execute(insert(deliveries).values(values))
    tx.notify(TOPIC)


def _data(row: Row[Any]) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": f"generations/{row.id}",
        "state": row.state,
        "variant": row.variant,
        "labels": row.labels,
        "create_time": _time(row.create_time),
        "end_time": _time(row.end_time),
    }
    if row.include_prompt:
        parameters = generation_pb2.Parameters.FromString(row.parameters)
        data |= {"prompt": parameters.prompt, "negative_prompt": parameters.negative_prompt}
    if row.video_key is not None:
        data["video"] = {"size_bytes": row.video_size, "digest": row.video_digest}
    if row.error is not None:
        error = from_status(status_pb2.Status.FromString(row.error))
        data["error"] = {"code": error.code.name, "reason": error.reason.value, "message": error.message}
    return data


def forget_texts(tx: Transaction, generation: str) -> None:
    """Takes prompt and labels of a generation that is deleted out of its deliveries, those to come included."""
    mine = select(deliveries.c.id, deliveries.c.payload).where(deliveries.c.generation == generation)
    for row in tx.execute(mine).all():
        body = json.loads(row.payload)
        for name in ("prompt", "negative_prompt", "labels"):
            body["data"].pop(name, None)
        payload = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        tx.execute(update(deliveries).where(deliveries.c.id == row.id).values(payload=payload))


def _time(microseconds: int) -> str:
    time = Timestamp()
    time.FromMicroseconds(microseconds)
    return time.ToJsonString()


@dataclass(frozen=True, slots=True)
class Try:
    """One try at a delivery; it is over when its lease is."""

    id: str
    number: int
    url: str
    payload: bytes
    secrets: tuple[str, ...]
    """Each signs; the newest first."""
    seconds: int
    """The store's time, since 1970."""


def any_due(tx: Transaction) -> bool:
    """Whether a delivery waits to be tried now."""
    return tx.execute(select(deliveries.c.id).where(_due(tx)).limit(1)).one_or_none() is not None


def _due(tx: Transaction) -> Any:
    due = and_(deliveries.c.state == "PENDING", deliveries.c.next_time <= tx.now)
    return and_(due, deliveries.c.lease_expire_time <= tx.now)


def claim(tx: Transaction, room: int, lease_seconds: float) -> list[Try]:
    """Takes up to `room` deliveries that are due, the oldest first; nobody else tries them while the lease runs."""
    under_way = and_(deliveries.c.state == "PENDING", deliveries.c.lease_expire_time > tx.now)
    counts = select(deliveries.c.tenant, func.count().label("tries")).where(under_way).group_by(deliveries.c.tenant)
    busy = Counter({row.tenant: int(row.tries) for row in tx.execute(counts).all()})
    query = select(deliveries, webhooks.c.secret, webhooks.c.previous_secret, webhooks.c.previous_secret_expire_time)
    query = query.join(webhooks, webhooks.c.tenant == deliveries.c.tenant).where(_due(tx))
    tries: list[Try] = []
    for row in tx.execute(query.order_by(deliveries.c.next_time).limit(64 * room)).all():
        if len(tries) == room:
            break
        if busy[row.tenant] >= PER_TENANT:
            continue
        busy[row.tenant] += 1
        lease = {"lease_expire_time": tx.now + round(lease_seconds * 1_000_000), "attempt_count": row.attempt_count + 1}
        tx.execute(update(deliveries).where(deliveries.c.id == row.id).values(lease))
        signing = [row.secret]
        if row.previous_secret is not None and row.previous_secret_expire_time > tx.now:
            signing.append(row.previous_secret)
        tries.append(Try(row.id, row.attempt_count + 1, row.url, row.payload, tuple(signing), tx.now // 1_000_000))
    return tries


def taken(tx: Transaction, done: Try) -> None:
    """Records that the receiver has taken it."""
    tx.execute(update(deliveries).where(_current(done)).values(state="DELIVERED", end_time=tx.now, last_error=""))
    tx.notify(TOPIC)


def refused(tx: Transaction, done: Try, error: str, *, retry_after: float | None, for_good: bool) -> None:
    """Records a try that failed: another one later, or DEAD after the last."""
    row = tx.execute(select(deliveries).where(_current(done))).one_or_none()
    if row is None:
        return
    left = row.tries_left - 1
    values: dict[str, Any] = {"last_error": error, "tries_left": left, "lease_expire_time": 0}
    if for_good or left <= 0:
        values |= {"state": "DEAD", "end_time": tx.now}
    else:
        pause = max(BACKOFF[len(BACKOFF) - left], min(retry_after or 0.0, LONGEST_RETRY_AFTER))
        values["next_time"] = tx.now + round(pause * 1_000_000)
    tx.execute(update(deliveries).where(_current(done)).values(values))
    tx.notify(TOPIC)


def _current(done: Try) -> Any:
    """True for the row of a delivery that nobody has tried since."""
    mine = and_(deliveries.c.id == done.id, deliveries.c.attempt_count == done.number)
    return and_(mine, deliveries.c.state == "PENDING")


def page(tx: Transaction, tenant: str, state: str, limit: int, after: str | None = None) -> Sequence[DeliveryRow]:
    """Up to `limit` of a tenant's deliveries of one state or of any, newest first, that come after a place in it."""
    query = select(deliveries).where(deliveries.c.tenant == tenant)
    if state:
        query = query.where(deliveries.c.state == state)
    if after is not None:
        time, _, identity = after.partition(" ")
        same = and_(deliveries.c.create_time == int(time), deliveries.c.id > identity)
        query = query.where(or_(deliveries.c.create_time < int(time), same))
    return tx.execute(query.order_by(deliveries.c.create_time.desc(), deliveries.c.id).limit(limit)).all()


def place(row: DeliveryRow) -> str:
    """Where a delivery stands among a tenant's, as `page` takes it."""
    return f"{row.create_time} {row.id}"


def redeliver(tx: Transaction, tenant: str, delivery: str) -> DeliveryRow:
    """Has a delivery tried again at once, with all its tries. Raises NotFound, FailedPrecondition (NO_WEBHOOK)."""
    mine = and_(deliveries.c.id == delivery, deliveries.c.tenant == tenant)
    if tx.execute(select(deliveries.c.id).where(mine)).one_or_none() is None:
        raise NotFound(f"deliveries/{delivery} does not exist: ListDeliveries names those that do.")
    check_secret(tx, tenant)
    again = {"state": "PENDING", "end_time": None, "tries_left": len(BACKOFF) + 1, "next_time": tx.now}
    tx.execute(update(deliveries).where(mine).values(again))
    tx.notify(TOPIC)
    return tx.execute(select(deliveries).where(mine)).one()


def forget_old(tx: Transaction) -> None:
    """Deletes what was over long ago."""
    for state, seconds in KEPT_SECONDS.items():
        old = and_(deliveries.c.state == state, deliveries.c.end_time < tx.now - seconds * 1_000_000)
        tx.execute(delete(deliveries).where(old))
