"""An owner and its leases: what it does once it cannot renew them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from sqlalchemy import select

from wan22.errors import Unavailable
from wan22_gateway import dispatcher
from wan22_gateway.attempt import AttemptRunner
from wan22_gateway.dispatcher import Dispatcher
from wan22_gateway.store.claims import Claim
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.schema import generations
from wan22_gateway.store.sqlite import SqliteDatabase

from . import rows

T = TypeVar("T")
LEASE = 2.0


class AwayDatabase(SqliteDatabase):
    """A store whose leases cannot be renewed: it hangs, or fails at once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.trouble: Callable[[], Any] | None = None
        self.missed = asyncio.Event()
        """Set at the first renewal that has failed so."""

    async def write_own(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        if self.trouble is not None:
            self.missed.set()
            await self.trouble()
        return await super().write_own(function, *args, **kwargs)


class Attended:
    """What stands in a dispatcher for the stream to a worker: it says when it was let go of."""

    def __init__(self, database: SqliteDatabase, claim: Claim) -> None:
        self._database = database
        self.fence = claim.fence
        self.let_go = asyncio.Event()
        self.left = 0.0

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.left = await asyncio.shield(self._database.read(seconds_left))
            self.let_go.set()


def seconds_left(tx: Transaction) -> float:
    """Of the only lease there is."""
    end: int = tx.execute(select(generations.c.lease_expire_time)).scalar_one()
    return (end - tx.now) / 1_000_000


async def hang() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise Unavailable("The store is away.")


@pytest.mark.parametrize("trouble", [hang, fail])
async def test_an_owner_that_cannot_renew_its_lease_lets_go_before_it_lapses_and_takes_over_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[], Any]
) -> None:
    monkeypatch.setattr(dispatcher, "EARLY_SHARE", 0.5)  # a second, in which even this machine comes to it
    database = AwayDatabase(tmp_path / "store")
    attended: list[Attended] = []
    came = asyncio.Event()

    def runner(claim: Claim) -> AttemptRunner:
        attended.append(Attended(database, claim))
        came.set()
        return cast("AttemptRunner", attended[-1])

    def prepare(tx: Transaction) -> None:
        rows.add_pool(tx)
        rows.add_worker(tx)
        rows.add_generation(tx)

    await database.write(prepare)
    work = asyncio.create_task(Dispatcher(database, "owner", runner, lease_seconds=LEASE, resume_wait=0.0).run())
    try:
        async with asyncio.timeout(60):
            await came.wait()
            database.trouble = trouble
            first = attended[0]
            await database.missed.wait()
            await first.let_go.wait()
            assert 0 < first.left < 0.75 * LEASE
            database.trouble = None
            came.clear()
            await came.wait()
        assert len(attended) == 2
        assert attended[1].fence.attempt == first.fence.attempt
        assert attended[1].fence.owner_epoch == first.fence.owner_epoch + 1
    finally:
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        await database.close()
