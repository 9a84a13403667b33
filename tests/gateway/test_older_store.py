from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from wan22.errors import Aborted, Reason, Wan22Error
from wan22.v1.generation_pb2 import Generation
from wan22.v1.inference_pb2 import GenerateEvent
from wan22_gateway import lifecycle, older_store
from wan22_gateway.lifecycle import Fence, State
from wan22_gateway.older_store import MAX_EPOCH, MAX_NUMBER
from wan22_gateway.store import claims
from wan22_gateway.store.claims import Claim
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.schema import generations

from . import rows
from .scripted_worker import T2V, Script, ScriptedWorkerServicer, Start, gateway_with

LEASE = 15.0


def stale(*, number: object = None, owner_epoch: object = None) -> Aborted:
    told = {"number": number, "owner_epoch": owner_epoch}
    known = {name: str(value) for name, value in told.items() if value is not None}
    return Aborted("stale", reason=Reason.STALE_OWNER, metadata=known)


def claimed(tx: Transaction) -> Claim:
    rows.add_pool(tx)
    rows.add_worker(tx)
    rows.add_generation(tx)
    claim = claims.claim_next(tx, "owner", LEASE, 60.0)
    assert claim is not None
    return claim


def started(tx: Transaction) -> Claim:
    claim = claimed(tx)
    assert lifecycle.start(tx, claim.fence, claim.worker, "u1")
    return claim


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING])
async def test_beside_a_later_attempt_the_next_one_has_a_higher_number(database: Database, state: State) -> None:
    claim = await database.write(started if state == State.RUNNING else claimed)
    seen = Fence(claim.fence.generation, 3, 7)
    assert await database.write(older_store.go_beyond, claim, seen)
    again = await database.write(claims.claim_next, "owner", LEASE, 60.0)
    assert again is not None
    assert (again.fence.attempt, again.fence.owner_epoch) == (4, 8)


async def test_a_running_attempt_of_a_later_owner_is_taken_over_at_once_beyond_it(database: Database) -> None:
    claim = await database.write(started)
    assert await database.write(older_store.go_beyond, claim, Fence(claim.fence.generation, 1, 7))
    (again,) = await database.write(claims.take_over, "owner", LEASE)
    assert (again.fence.attempt, again.fence.owner_epoch) == (1, 8)
    row = await database.read(lambda tx: tx.execute(select(generations)).one())
    assert row.state == State.RUNNING


async def test_an_old_fence_or_nothing_newer_changes_nothing(database: Database) -> None:
    claim = await database.write(started)
    same = Fence(claim.fence.generation, claim.fence.attempt, claim.fence.owner_epoch)
    assert not await database.write(older_store.go_beyond, claim, same)
    await database.write(claims.take_over, "other", LEASE, everything=True)
    assert not await database.write(older_store.go_beyond, claim, Fence(claim.fence.generation, 9, 9))
    row = await database.read(lambda tx: tx.execute(select(generations)).one())
    assert (row.state, row.attempt_count, row.owner_epoch) == (State.RUNNING, 1, 2)


async def test_a_cancelled_generation_ends_beside_a_later_attempt(database: Database) -> None:
    claim = await database.write(started)
    await database.write(lifecycle.request_cancel, claim.fence.generation)
    assert await database.write(older_store.go_beyond, claim, Fence(claim.fence.generation, 2, 7))
    row = await database.read(lambda tx: tx.execute(select(generations)).one())
    assert row.state == State.CANCELLED


@given(number=st.none() | st.integers() | st.text(), epoch=st.none() | st.integers() | st.text())
def test_whatever_a_worker_tells_leads_to_a_fence_that_can_be_raised(number: object, epoch: object) -> None:
    seen = older_store.newest_seen(stale(number=number, owner_epoch=epoch), Fence("g", 2, 5))
    assert 0 <= seen.attempt <= MAX_NUMBER
    assert 0 <= seen.owner_epoch <= MAX_EPOCH


def test_a_worker_that_tells_nothing_leads_one_further() -> None:
    assert older_store.newest_seen(stale(), Fence("g", 2, 5)) == Fence("g", 3, 5)
    assert older_store.newest_seen(stale(number=4, owner_epoch=9), Fence("g", 2, 5)) == Fence("g", 4, 9)


@pytest.mark.parametrize("tells", [True, False])
async def test_a_worker_that_knows_of_attempt_3_gets_a_later_one(tmp_path: Path, tells: bool) -> None:
    def refuse(start: Start) -> list[GenerateEvent | Wan22Error]:
        return [stale(number=3, owner_epoch=5) if tells else stale()]

    scripts: list[Script] = [refuse] if tells else [refuse, refuse]
    worker = ScriptedWorkerServicer(*scripts)
    async with asyncio.timeout(60), gateway_with(tmp_path, worker) as client:
        done = await client.wait((await client.create(variant=T2V, prompt="a red circle")).name)
    assert done.state == Generation.SUCCEEDED
    numbers = [start.attempt.number for start in worker.starts]
    assert numbers == ([1, 4] if tells else [1, 3, 5])
