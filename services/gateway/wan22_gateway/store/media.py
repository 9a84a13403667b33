"""Rows of uploaded images, each of one tenant: where its object lies, and which generations refer to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, exists, func, insert, select, update

from wan22.errors import NotFound, Reason, ResourceExhausted
from wan22_gateway.store import objects, tenants
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.schema import media, media_uses

BATCH = 100
"""Most images that one transaction forgets: bounds how long others wait for it."""


MediaRow = Row[Any]


def get(tx: Transaction, tenant: str, media_id: str) -> MediaRow:
    """One image. Raises NotFound, also when it is another tenant's."""
    row = tx.execute(select(media).where(_of(tenant, media_id))).one_or_none()
    if row is None:
        raise NotFound(f"media/{media_id} does not exist: upload the image by UploadMedia first.")
    return row


def touch(tx: Transaction, tenant: str, media_id: str) -> str | None:
    """Takes note that an image came again, so that it is kept as if it were new. Returns its key, None without one."""
    again = update(media).where(_of(tenant, media_id)).values(use_time=tx.now)
    return tx.execute(again.returning(media.c.key)).scalar_one_or_none()


def kept_bytes(tx: Transaction, tenant: str) -> int:
    """Bytes of a tenant's images that are kept."""
    total = select(func.coalesce(func.sum(media.c.size_bytes), 0)).where(media.c.tenant == tenant)
    return int(tx.execute(total).scalar_one())


def check_room(tx: Transaction, tenant: str, size_bytes: int) -> None:
    """Raises ResourceExhausted (QUOTA_EXCEEDED) when another image is more than a tenant may have."""
    most = tenants.limits_of(tx, tenant).max_media_bytes
    if most is None:
        return
    kept = kept_bytes(tx, tenant)
    if kept + size_bytes > most:
        text = (
            f"Tenant {tenant} has {kept} bytes of uploaded images and may have {most}; this one has {size_bytes} as "
            "the PNG that is kept. An image goes some time after the last generation that refers to it."
        )
        raise ResourceExhausted(text, reason=Reason.QUOTA_EXCEEDED, metadata={"quota": "media_bytes"})


def add(tx: Transaction, tenant: str, media_id: str, size: tuple[int, int], size_bytes: int, key: str) -> None:
    """Records a tenant's image, whose object of that key is written. Of two at the same time the first is kept.

    Raises as `check_room` does: another image may have come since it was asked.
    """
    if touch(tx, tenant, media_id) is not None:
        objects.discard(tx, key)
        return
    check_room(tx, tenant, size_bytes)
    row = {"id": media_id, "tenant": tenant, "width": size[0], "height": size[1], "key": key, "size_bytes": size_bytes}
    tx.execute(insert(media).values(**row, create_time=tx.now, use_time=tx.now))
    objects.commit(tx, key)


def replace(tx: Transaction, tenant: str, media_id: str, size_bytes: int, key: str) -> None:
    """Gives an image whose object was lost another one, which is written."""
    objects.commit(tx, key)
    tx.execute(update(media).where(_of(tenant, media_id)).values(key=key, use_time=tx.now, size_bytes=size_bytes))


def refer(tx: Transaction, tenant: str, generation: str, media_ids: Iterable[str]) -> None:
    """Has a new generation refer to images, which are kept as long as it. Raises NotFound for one that is gone."""
    for media_id in media_ids:
        if touch(tx, tenant, media_id) is None:
            get(tx, tenant, media_id)
        tx.execute(insert(media_uses).values(generation=generation, media=media_id, tenant=tenant))


def forget_unused(tx: Transaction, unused_for: int) -> int:
    """Makes images garbage that no generation refers to, and that nobody has used for so many microseconds.

    Returns how many, at most BATCH.
    """
    used = exists().where(media_uses.c.tenant == media.c.tenant, media_uses.c.media == media.c.id)
    query = select(media.c.tenant, media.c.id, media.c.key).where(media.c.use_time < tx.now - unused_for, ~used)
    rows = tx.execute(query.order_by(media.c.use_time).limit(BATCH)).all()
    for row in rows:
        tx.execute(delete(media).where(_of(row.tenant, row.id)))
        objects.drop(tx, [row.key])
    return len(rows)


def let_go(tx: Transaction, generation: str) -> None:
    """Starts the time anew of the images that a generation, which is about to be deleted, refers to."""
    mine = select(media_uses.c.media).where(media_uses.c.generation == generation)
    tenant = select(media_uses.c.tenant).where(media_uses.c.generation == generation).limit(1).scalar_subquery()
    tx.execute(update(media).where(media.c.tenant == tenant, media.c.id.in_(mine)).values(use_time=tx.now))


def _of(tenant: str, media_id: str) -> ColumnElement[bool]:
    return and_(media.c.tenant == tenant, media.c.id == media_id)
