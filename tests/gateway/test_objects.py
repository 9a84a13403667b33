from __future__ import annotations

from contextlib import suppress
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update

from wan22.errors import Unavailable
from wan22_gateway.store import objects
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.schema import objects as table

KEY = "videos/one/1-1.mp4"


def state(tx: Transaction) -> str | None:
    return tx.execute(select(table.c.state).where(table.c.key == KEY)).scalar_one_or_none()


async def test_an_object_is_pending_then_live_then_garbage_then_gone(database: Database) -> None:
    await database.write(objects.begin, KEY)
    assert await database.read(state) == "pending"
    await database.write(objects.begin, KEY)  # a second try
    await database.write(objects.commit, KEY)
    assert (await database.read(state), await database.read(objects.garbage)) == ("live", [])
    await database.write(objects.drop, [KEY])
    assert await database.read(objects.garbage) == [KEY]
    await database.write(objects.deleted, KEY)
    assert await database.read(state) is None


async def test_an_upload_that_slept_for_hours_is_written_again_rather_than_lost(database: Database) -> None:
    await database.write(objects.begin, KEY)
    await database.write(objects.abandon_stale)
    assert await database.read(state) == "pending"
    await database.write(lambda tx: tx.execute(update(table).values(create_time=tx.now - objects.PENDING_LIFE - 1)))
    await database.write(objects.abandon_stale)
    with pytest.raises(Unavailable, match="took too long"):
        await database.write(objects.commit, KEY)
    with pytest.raises(Unavailable, match="is being deleted"):
        await database.write(objects.begin, KEY)
    assert await database.read(objects.garbage) == [KEY]
    await database.write(objects.deleted, KEY)
    with pytest.raises(Unavailable, match="took too long"):
        await database.write(objects.commit, KEY)
    await database.write(objects.begin, KEY)
    await database.write(objects.commit, KEY)
    assert await database.read(state) == "live"


class Story:
    """A writer (begin, put, commit) and housekeeping (look, delete, forget) that know nothing of each other."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.there = False
        """Whether the object is in the result store."""
        self.begun = self.written = False
        self.doomed: list[str] = []
        self.writer = cycle([self.begin, self.put, self.commit])
        self.keeper = cycle([self.look, self.delete, self.forget])

    async def write(self) -> None:
        await next(self.writer)()

    async def keep(self) -> None:
        await next(self.keeper)()

    async def begin(self) -> None:
        self.begun = self.written = False
        await self.database.write(objects.begin, KEY)
        self.begun = True

    async def put(self) -> None:
        self.written = self.begun
        self.there |= self.begun

    async def commit(self) -> None:
        if self.written:
            self.begun = self.written = False
            await self.database.write(objects.commit, KEY)

    async def discard(self) -> None:
        self.begun = self.written = False
        await self.database.write(objects.discard, KEY)

    async def drop(self) -> None:
        await self.database.write(objects.drop, [KEY])

    async def abandon(self) -> None:
        await self.database.write(objects.abandon_pending)

    async def look(self) -> None:
        self.doomed = self.doomed or await self.database.read(objects.garbage)

    async def delete(self) -> None:
        self.there &= not self.doomed

    async def forget(self) -> None:
        await self.delete()  # comes first
        if self.doomed:
            await self.database.write(objects.deleted, KEY)
        self.doomed = []


STEPS = ["write", "write", "keep", "keep", "abandon", "drop", "discard"]


@settings(max_examples=100)
@given(st.lists(st.sampled_from(STEPS), max_size=25))
async def test_in_whatever_order_things_happen_a_live_object_is_there(database: Database, steps: list[str]) -> None:
    await database.write(lambda tx: tx.execute(delete(table)))
    story = Story(database)
    for step in steps:
        with suppress(Unavailable):
            await getattr(story, step)()
        assert story.there or await database.read(state) != "live"
