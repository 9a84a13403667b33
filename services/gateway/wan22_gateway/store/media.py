"""Rows of uploaded images, each of one tenant: where its object lies, and which generations refer to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, exists, insert, select, update

from wan22.errors import NotFound
from wan22_gateway.store import objects
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


def add(tx: Transaction, tenant: str, media_id: str, size: tuple[int, int], key: str) -> None:
    """Records a tenant's image, whose object of that key is written. Of two at the same time the first is kept."""
    row = {"id": media_id, "tenant": tenant, "width": size[0], "height": size[1], "key": key}
    fresh = tx.upsert(media).values(**row, create_time=tx.now, use_time=tx.now)
    if tx.execute(fresh.on_conflict_do_nothing().returning(media.c.id)).one_or_none() is not None:
        objects.commit(tx, key)
    else:
        objects.discard(tx, key)
        touch(tx, tenant, media_id)


def replace(tx: Transaction, tenant: str, media_id: str, key: str) -> None:
    """Gives an image whose object was lost another one, which is written."""
    objects.commit(tx, key)
    tx.execute(update(media).where(_of(tenant, media_id)).values(key=key, use_time=tx.now))


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
