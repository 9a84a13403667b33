"""The next generation is claimed for a busy worker, which prepares it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from google.rpc.status_pb2 import Status
from sqlalchemy import select, update

from wan22.errors import FailedPrecondition, Reason
from wan22.status import from_status
from wan22_gateway import lifecycle, outcome
from wan22_gateway.demand import pool_message
from wan22_gateway.generation_messages import waiting_for
from wan22_gateway.lifecycle import State, StoredVideo
from wan22_gateway.queue_view import view
from wan22_gateway.store import claims, generations, pools, quarantine
from wan22_gateway.store.claims import Claim, Loss
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.generations import GenerationRow
from wan22_gateway.store.pools import WorkerRow
from wan22_gateway.store.schema import generations as generation_table
from wan22_gateway.store.schema import workers

from . import rows

LEASE, RESUME_WAIT = 15.0, 60.0
VIDEO = StoredVideo("videos/x", 3, "sha256:" + "1" * 64)


def claim(tx: Transaction) -> Claim | None:
    return claims.claim_next(tx, "owner", LEASE, RESUME_WAIT)


def row(tx: Transaction, generation: str) -> GenerationRow:
    return generations.get(tx, "default", generation)


@dataclass(frozen=True)
class Two:
    """A worker's two claims: the running one and the prepared one."""

    running: Claim
    prepared: Claim


def two_claims(tx: Transaction) -> Two:
    rows.add_pool(tx)
    rows.add_worker(tx)
    first, second = rows.add_generation(tx), rows.add_generation(tx)
    running = claim(tx)
    assert running is not None
    assert claim(tx) is None  # it has not started: nothing is prepared beside it
    lifecycle.start(tx, running.fence, running.worker, "uid")
    prepared = claim(tx)
    assert prepared is not None
    assert (running.fence.generation, prepared.fence.generation) == (first, second)
    return Two(running, prepared)


def worker(tx: Transaction, name: str = "workers/w1") -> WorkerRow:
    return tx.execute(select(workers).where(workers.c.name == name)).one()


def places(row: WorkerRow) -> tuple[str | None, str | None]:
    return row.generation, row.prepared


async def test_a_busy_worker_prepares_one_generation_which_stays_queued(database: Database) -> None:
    two = await database.write(two_claims)
    await database.write(rows.add_generation)
    assert await database.write(claim) is None  # one is the most
    assert two.prepared.worker == "workers/w1"
    queued = await database.read(row, two.prepared.fence.generation)
    assert (queued.state, queued.attempt_count) == (State.QUEUED, 0)
    assert await database.read(waiting_for, queued) == "its turn on workers/w1"
    place = await database.read(lambda tx: view(tx, rows.POOL).place_of(queued))
    assert place.position == 1
    assert place.start == pytest.approx(10.0, abs=5.0)
    demand = (await database.read(lambda tx: pool_message(tx, pools.get(tx, rows.POOL), complete=True))).demand
    assert [bucket.count for bucket in demand.queued] == [1, 1]
    assert len(demand.running) == 1
    assert await database.read(claims.is_prepared, two.prepared)
    assert not await database.read(claims.is_prepared, two.running)


async def test_the_prepared_generation_is_next_when_the_running_one_ends(database: Database) -> None:
    two = await database.write(two_claims)
    await database.write(lifecycle.succeed, two.running.fence, VIDEO)
    assert places(await database.read(worker)) == (two.prepared.fence.generation, None)
    assert await database.write(lifecycle.start, two.prepared.fence, "workers/w1", "uid")
    third = await database.write(rows.add_generation)
    taken = await database.write(claim)
    assert taken is not None
    assert taken.fence.generation == third
    assert places(await database.read(worker)) == (two.prepared.fence.generation, third)


async def test_the_prepared_generation_may_start_while_the_others_video_is_stored(database: Database) -> None:
    two = await database.write(two_claims)
    await database.write(lambda tx: rows.add_worker(tx, state="BUSY"))
    assert await database.write(lifecycle.start, two.prepared.fence, "workers/w1", "uid")
    assert await database.write(lifecycle.succeed, two.running.fence, VIDEO)
    after = await database.read(worker)
    assert places(after) == (two.prepared.fence.generation, None)
    assert after.state == "BUSY"
    assert await database.write(lifecycle.succeed, two.prepared.fence, VIDEO)
    assert places(await database.read(worker)) == (None, None)


async def test_an_idle_worker_takes_what_a_busy_one_has_prepared_and_no_attempt_is_counted(database: Database) -> None:
    two = await database.write(two_claims)
    later = await database.write(rows.add_generation)
    before = await database.read(row, two.prepared.fence.generation)
    await database.write(rows.add_worker, "workers/w2")
    taken = await database.write(claim)
    assert taken is not None
    assert (taken.fence.generation, taken.worker) == (two.prepared.fence.generation, "workers/w2")
    assert taken.fence.attempt == two.prepared.fence.attempt
    assert taken.fence.owner_epoch == two.prepared.fence.owner_epoch + 1
    assert not await database.write(lifecycle.start, two.prepared.fence, "workers/w1", "uid")
    assert await database.read(claims.is_stale, two.prepared)
    assert not await database.read(claims.is_stale, taken)
    after = await database.read(row, two.prepared.fence.generation)
    assert (after.state, after.attempt_count, after.last_sequence) == (State.QUEUED, 0, before.last_sequence)
    instead = await database.write(claim)  # the busy worker prepares the next in line
    assert instead is not None
    assert (instead.fence.generation, instead.worker) == (later, "workers/w1")


async def test_an_idle_worker_comes_before_one_that_would_prepare(database: Database) -> None:
    await database.write(prepare_running)
    await database.write(rows.add_worker, "workers/w2")
    await database.write(rows.add_generation)
    taken = await database.write(claim)
    assert taken is not None
    assert taken.worker == "workers/w2"


async def test_of_two_busy_workers_the_one_that_is_predicted_to_be_free_first_prepares(database: Database) -> None:
    await database.write(lambda tx: prepare_running(tx, predicted=40.0))
    await database.write(rows.add_worker, "workers/w2")
    await database.write(lambda tx: prepare_running(tx, predicted=20.0))
    await database.write(rows.add_generation)
    taken = await database.write(claim)
    assert taken is not None
    assert taken.worker == "workers/w2"


async def test_nothing_is_bound_to_a_worker_that_is_busy_for_long(database: Database) -> None:
    await database.write(lambda tx: prepare_running(tx, predicted=claims.PREPARE_SECONDS + 10))
    await database.write(rows.add_generation)
    assert await database.write(claim) is None


async def test_a_generation_whose_cancel_is_wanted_is_not_given_to_another_worker(database: Database) -> None:
    two = await database.write(two_claims)
    await database.write(lifecycle.request_cancel, two.prepared.fence.generation)
    await database.write(rows.add_worker, "workers/w2")
    assert await database.write(claim) is None
    await database.write(outcome.stopped, two.prepared)
    assert (await database.read(row, two.prepared.fence.generation)).state == State.CANCELLED
    assert places(await database.read(worker)) == (two.running.fence.generation, None)


async def test_a_worker_that_refuses_to_prepare_is_asked_again_beside_the_next_generation(database: Database) -> None:
    two = await database.write(two_claims)
    await database.write(outcome.refused, two.prepared, "BUSY")
    assert places(await database.read(worker)) == (two.running.fence.generation, None)
    assert await database.write(claim) is None
    await database.write(lifecycle.succeed, two.running.fence, VIDEO)
    again = await database.write(claim)
    assert again is not None
    assert (again.fence.generation, again.fence.attempt) == (two.prepared.fence.generation, 1)
    await database.write(lifecycle.start, again.fence, again.worker, "uid")
    await database.write(rows.add_generation)
    assert await database.write(claim) is not None


@pytest.mark.parametrize("state", ["LOADING", "DRAINING", "BROKEN"])
async def test_a_worker_that_leaves_or_is_broken_prepares_nothing(database: Database, state: str) -> None:
    await database.write(prepare_running)
    await database.write(lambda tx: rows.add_worker(tx, state=state))
    await database.write(rows.add_generation)
    assert await database.write(claim) is None


async def test_a_lost_worker_gives_both_back_and_counts_an_attempt_of_the_running_one_alone(
    database: Database,
) -> None:
    two = await database.write(two_claims)
    gone = Loss("workers/w1 ended and was started again", died=True)
    for claimed in (two.running, two.prepared):
        await database.write(outcome.lost, claimed, gone)
    assert places(await database.read(worker)) == (None, None)
    counts = [(await database.read(row, c.fence.generation)).attempt_count for c in (two.running, two.prepared)]
    assert counts == [1, 0]
    deaths = [len(await database.read(quarantine.deaths, c.fence.generation)) for c in (two.running, two.prepared)]
    assert deaths == [1, 0]


async def test_each_claim_has_its_lease_and_is_taken_over(database: Database) -> None:
    two = await database.write(two_claims)
    assert await database.write(claims.renew, "owner", [two.running.fence, two.prepared.fence], LEASE) == {
        two.running.fence,
        two.prepared.fence,
    }
    of_prepared = update(generation_table).where(generation_table.c.id == two.prepared.fence.generation)
    await database.write(lambda tx: tx.execute(of_prepared.values(lease_expire_time=tx.now - 1)))
    (taken,) = await database.write(claims.take_over, "other", LEASE)
    assert taken.fence.generation == two.prepared.fence.generation
    assert taken.fence.owner_epoch == two.prepared.fence.owner_epoch + 1
    assert await database.read(claims.is_prepared, taken)
    assert not await database.read(claims.is_stale, two.prepared)  # the worker still has business with the attempt


async def test_a_prepared_generation_that_can_no_longer_make_its_deadline_fails_before_it_starts(
    database: Database,
) -> None:
    two = await database.write(two_claims)
    of_prepared = update(generation_table).where(generation_table.c.id == two.prepared.fence.generation)

    def set_times(tx: Transaction, start_by: int) -> None:
        tx.execute(of_prepared.values(deadline=tx.now + 9_000_000, start_by_time=tx.now + start_by))

    for start_by, late in ((1_000_000_000, False), (-1, True)):
        await database.write(set_times, start_by)
        queued = await database.read(row, two.prepared.fence.generation)
        assert await database.read(outcome.is_late, queued) is late  # then its worker is told to let it go
    await database.write(outcome.stopped, two.prepared)
    failed = await database.read(row, two.prepared.fence.generation)
    error = from_status(Status.FromString(failed.error))
    assert (failed.state, error.reason, failed.attempt_count) == (State.FAILED, Reason.DEADLINE_MISSED, 0)
    assert "it still waits, and is predicted to take 10 s" in error.message
    assert places(await database.read(worker)) == (two.running.fence.generation, None)


async def test_a_worker_with_a_prepared_generation_is_not_drained(database: Database) -> None:
    two = await database.write(two_claims)
    with pytest.raises(FailedPrecondition, match=two.running.fence.generation):
        await database.write(pools.drain, "workers/w1", 60.0)


def prepare_running(tx: Transaction, predicted: float = 10.0) -> None:
    """One more generation, which runs on the idle worker."""
    rows.add_pool(tx)
    if not pools.workers_of(tx, rows.POOL):
        rows.add_worker(tx)
    rows.add_generation(tx, predicted=predicted)
    taken = claim(tx)
    assert taken is not None
    lifecycle.start(tx, taken.fence, taken.worker, "uid")
