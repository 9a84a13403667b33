"""Rows of tenants: their weight and limits. A tenant without a row has weight 1 and no limits of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sqlalchemy import Row, bindparam, delete, func, select

from wan22.errors import FailedPrecondition, NotFound, Reason, ResourceExhausted
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.schema import deliveries, generations, keys, quarantine, tenants, usage, webhooks

DAY = 24 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant may have; None is no limit."""

    weight: float = 1.0
    """Its share of busy pools beside those of others."""
    max_queued: int | None = None
    max_running: int | None = None
    """Generations that have a worker at once, over all pools."""
    gpu_seconds_per_day: float | None = None
    """UTC days."""
    max_media_bytes: int | None = None
    """Of uploaded images that are kept."""


@dataclass(frozen=True, slots=True)
class Present:
    """What a tenant has now."""

    queued: int
    running: int
    predicted_seconds: float
    """Of those two together."""
    gpu_seconds_today: float
    """Of generations that ended."""


TenantRow = Row[Any]


def apply(tx: Transaction, name: str, wanted: Limits, *, declared: bool = False) -> TenantRow:
    """Creates a tenant or changes it. Raises FailedPrecondition for one of the file, but for the file itself."""
    row = tx.execute(select(tenants).where(tenants.c.name == name)).one_or_none()
    if row is not None and row.declared and not declared:
        raise FailedPrecondition(f"tenants/{name} is one of the gateway's file of tenants: change it there.")
    values = {**asdict(wanted), "declared": declared}
    statement = tx.upsert(tenants).values(name=name, create_time=tx.now, **values)
    tx.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))
    tx.notify("queue")
    return get(tx, name)


def get(tx: Transaction, name: str) -> TenantRow:
    """One tenant. Raises NotFound."""
    row = tx.execute(select(tenants).where(tenants.c.name == name)).one_or_none()
    if row is None:
        raise NotFound(f"tenants/{name} does not exist: make it first.")
    return row


def exists(tx: Transaction, name: str) -> bool:
    """Whether there is such a tenant."""
    return tx.execute(select(tenants.c.name).where(tenants.c.name == name)).one_or_none() is not None


def list_all(tx: Transaction) -> Sequence[TenantRow]:
    """Every tenant, by name."""
    return tx.execute(select(tenants).order_by(tenants.c.name)).all()


def remove(tx: Transaction, name: str) -> None:
    """Deletes a tenant and its keys. Raises NotFound, FailedPrecondition (TENANT_IN_USE) while it has generations."""
    if get(tx, name).declared:
        raise FailedPrecondition(f"tenants/{name} is one of the gateway's file of tenants: take it out there.")
    if tx.execute(select(generations.c.id).where(generations.c.tenant == name).limit(1)).one_or_none() is not None:
        text = f"tenants/{name} has generations: delete them first."
        raise FailedPrecondition(text, reason=Reason.TENANT_IN_USE)
    tx.execute(delete(keys).where(keys.c.tenant == name))
    tx.notify("keys")
    tx.execute(delete(webhooks).where(webhooks.c.tenant == name))
    tx.execute(delete(deliveries).where(deliveries.c.tenant == name))
    tx.execute(delete(quarantine).where(quarantine.c.tenant == name))
    tx.execute(delete(tenants).where(tenants.c.name == name))


def limits(tx: Transaction) -> dict[str, Limits]:
    """Those of every tenant that has a row."""
    return {row[0]: Limits(*row[1:]) for row in tx.execute(select(tenants.c.name, *_LIMITS)).all()}


def limits_of(tx: Transaction, tenant: str) -> Limits:
    """Those of one tenant."""
    row = tx.execute(_LIMITS_OF, {"tenant": tenant}).one_or_none()
    return Limits() if row is None else Limits(*row)


_LIMITS = tuple(tenants.c[each.name] for each in fields(Limits))
_LIMITS_OF = select(*_LIMITS).where(tenants.c.name == bindparam("tenant"))


def present(tx: Transaction, tenant: str) -> Present:
    """What a tenant has queued, running and used today."""
    counts = {"QUEUED": 0, "RUNNING": 0}
    seconds = 0.0
    sums = (func.count().label("number"), func.sum(generations.c.predicted_seconds).label("seconds"))
    query = select(generations.c.state, *sums)
    query = query.where(generations.c.tenant == tenant, generations.c.state.in_(counts))
    for row in tx.execute(query.group_by(generations.c.state)).all():
        counts[row.state] = row.number
        seconds += row.seconds
    used = select(func.coalesce(func.sum(usage.c.gpu_seconds), 0.0))
    used = used.where(usage.c.tenant == tenant, usage.c.day == tx.now // DAY)
    return Present(counts["QUEUED"], counts["RUNNING"], seconds, tx.execute(used).scalar_one())


class Quotas:
    """What tenants may still have, while requests are taken in one transaction."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._limits: dict[str, Limits] = {}
        self._present: dict[str, Present] = {}

    def take(self, tenant: str, count: int, predicted_seconds: float) -> None:
        """Takes note of so many more generations.

        Raises ResourceExhausted (QUOTA_EXCEEDED) when they are more than the tenant may have.
        """
        allowed = self._limits.get(tenant)
        if allowed is None:
            allowed = self._limits[tenant] = limits_of(self._tx, tenant)
        if allowed.max_queued is None and allowed.gpu_seconds_per_day is None:
            return
        now = self._present.get(tenant) or present(self._tx, tenant)
        _check(tenant, allowed, now, count, predicted_seconds, self._tx.now)
        seconds = now.predicted_seconds + count * predicted_seconds
        self._present[tenant] = replace(now, queued=now.queued + count, predicted_seconds=seconds)


def _check(tenant: str, allowed: Limits, now: Present, count: int, predicted_seconds: float, time: int) -> None:
    if allowed.max_queued is not None and now.queued + count > allowed.max_queued:
        text = f"Tenant {tenant} has {now.queued} generations queued and may have {allowed.max_queued}: "
        text += "wait for some, or cancel them."
        raise ResourceExhausted(text, reason=Reason.QUOTA_EXCEEDED, metadata={"quota": "queued"}, retry_after=10.0)
    wanted = now.gpu_seconds_today + now.predicted_seconds + count * predicted_seconds
    if allowed.gpu_seconds_per_day is not None and wanted > allowed.gpu_seconds_per_day:
        text = (
            f"Tenant {tenant} has used {now.gpu_seconds_today:.0f} GPU-seconds today and {now.predicted_seconds:.0f} "
            f"more are under way; {count * predicted_seconds:.0f} on top would pass its "
            f"{allowed.gpu_seconds_per_day:.0f} a day. The next day begins at 00:00 UTC."
        )
        left = (DAY - time % DAY) / 1_000_000
        raise ResourceExhausted(text, reason=Reason.QUOTA_EXCEEDED, metadata={"quota": "day"}, retry_after=left)
