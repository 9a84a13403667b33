from __future__ import annotations

import pytest
from google.rpc.status_pb2 import Status
from sqlalchemy import update

from wan22.errors import AlreadyExists, FailedPrecondition
from wan22_gateway import lifecycle, outcome
from wan22_gateway.cost import CostModel, Work
from wan22_gateway.lifecycle import State
from wan22_gateway.store import claims, generations, pools
from wan22_gateway.store.claims import Claim, Loss
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.schema import generations as generation_table
from wan22_gateway.store.schema import requests

from . import rows

LEASE, RESUME_WAIT = 15.0, 60.0
WEEK = 7 * 24 * 3600 * 1_000_000


def claim(tx: Transaction) -> Claim | None:
    return claims.claim_next(tx, "owner", LEASE, RESUME_WAIT)


def prepare(tx: Transaction) -> str:
    rows.add_pool(tx)
    rows.add_worker(tx)
    return rows.add_generation(tx)


def lapse_lease(tx: Transaction) -> None:
    tx.execute(update(generation_table).values(lease_expire_time=tx.now - 1))


async def test_the_oldest_generation_goes_to_an_idle_worker_and_each_once(database: Database) -> None:
    first = await database.write(prepare)
    second = await database.write(rows.add_generation)
    taken = await database.write(claim)
    assert taken is not None
    assert (taken.fence.generation, taken.worker, taken.fence.attempt) == (first, "workers/w1", 1)
    assert await database.write(claim) is None  # the only worker is claimed
    await database.write(rows.add_worker, "workers/w2")
    taken = await database.write(claim)
    assert taken is not None
    assert (taken.fence.generation, taken.worker) == (second, "workers/w2")


@pytest.mark.parametrize("state", ["LOADING", "BUSY", "DRAINING", "BROKEN"])
async def test_only_idle_workers_get_work(database: Database, state: str) -> None:
    await database.write(prepare)
    await database.write(lambda tx: rows.add_worker(tx, state=state))
    assert await database.write(claim) is None


async def test_silent_and_drained_workers_get_no_work(database: Database) -> None:
    await database.write(prepare)
    await database.write(lambda tx: rows.add_worker(tx, lease=-1.0))
    assert await database.write(claim) is None
    await database.write(rows.add_worker)
    await database.write(pools.drain, "workers/w1", 60.0)
    assert await database.write(claim) is None
    await database.write(pools.undrain, "workers/w1")
    assert await database.write(claim) is not None


async def test_a_drain_lapses_unless_it_is_renewed(database: Database) -> None:
    await database.write(prepare)
    await database.write(pools.drain, "workers/w1", -1.0)
    assert await database.write(claim) is not None


async def test_a_claimed_worker_is_not_drained(database: Database) -> None:
    generation = await database.write(prepare)
    await database.write(claim)
    with pytest.raises(FailedPrecondition, match=generation):
        await database.write(pools.drain, "workers/w1", 60.0)


async def test_a_lapsed_lease_is_not_renewed_and_is_taken_over_under_a_new_epoch(database: Database) -> None:
    generation = await database.write(prepare)
    taken = await database.write(claim)
    assert taken is not None
    assert await database.write(claims.renew, "owner", [taken.fence], LEASE) == {taken.fence}
    assert await database.write(claims.take_over, "other", LEASE) == []  # the lease holds
    await database.write(lapse_lease)
    assert await database.write(claims.renew, "owner", [taken.fence], LEASE) == set()
    (again,) = await database.write(claims.take_over, "other", LEASE)
    assert again.fence.generation == generation
    assert again.fence.attempt == taken.fence.attempt
    assert again.fence.owner_epoch == taken.fence.owner_epoch + 1
    assert not await database.write(lifecycle.start, taken.fence, "workers/w1", "uid")
    assert await database.write(lifecycle.start, again.fence, "workers/w1", "uid")


async def test_a_worker_is_lost_by_silence_by_a_restart_and_not_otherwise(database: Database) -> None:
    await database.write(prepare)
    taken = await database.write(claim)
    assert taken is not None
    assert await database.read(claims.loss, taken) is None
    await database.write(lambda tx: rows.add_worker(tx, lease=-1.0))
    assert await database.read(claims.loss, taken) is None  # nobody has asked since
    assert await database.write(lambda tx: pools.lose_silent(tx, rows.POOL, {rows.ADDRESS}, tx.now)) == ["workers/w1"]
    assert await database.read(claims.loss, taken) == Loss("workers/w1 does not answer", died=False, silent=True)
    await database.write(rows.add_worker)
    assert await database.read(claims.loss, taken) is None
    assert await database.write(lambda tx: pools.lose_silent(tx, rows.POOL, {rows.ADDRESS}, tx.now)) == []
    await database.write(lambda tx: rows.add_worker(tx, incarnation="i2"))
    assert await database.read(claims.loss, taken) == Loss("workers/w1 ended and was started again", died=True)


async def test_a_refusal_is_no_attempt(database: Database) -> None:
    generation = await database.write(prepare)
    taken = await database.write(claim)
    assert taken is not None
    await database.write(outcome.refused, taken, "BUSY")
    row = await database.read(generations.get, "default", generation)
    assert (row.state, row.attempt_count, row.claimed_worker) == (State.QUEUED, 0, None)
    assert await database.write(claim) is None  # the worker counts as busy until it says otherwise
    await database.write(rows.add_worker)
    again = await database.write(claim)
    assert again is not None
    assert again.fence.attempt == 1


async def test_a_lost_worker_ends_a_wanted_cancel(database: Database) -> None:
    generation = await database.write(prepare)
    taken = await database.write(claim)
    assert taken is not None
    await database.write(lifecycle.start, taken.fence, taken.worker, "uid")
    await database.write(lifecycle.request_cancel, generation)
    assert (await database.read(generations.get, "default", generation)).state == State.RUNNING
    await database.write(outcome.lost, taken, Loss("it is gone", died=False))
    assert (await database.read(generations.get, "default", generation)).state == State.CANCELLED


async def test_a_pool_with_unfinished_work_is_not_deleted(database: Database) -> None:
    generation = await database.write(prepare)
    with pytest.raises(FailedPrecondition, match="1 unfinished"):
        await database.write(pools.remove, rows.POOL)
    await database.write(lifecycle.request_cancel, generation)
    await database.write(pools.remove, rows.POOL)
    assert await database.read(pools.list_all) == []


async def test_a_deleted_pools_queue_is_refused_and_what_runs_there_goes_on(database: Database) -> None:
    running = await database.write(prepare)
    assert await database.write(claim) is not None
    waiting = await database.write(rows.add_generation)
    await database.write(pools.refuse_queued, rows.POOL)
    rows_now = await database.read(lambda tx: {one: generations.get(tx, "default", one) for one in (running, waiting)})
    assert rows_now[waiting].state == State.FAILED
    assert Status.FromString(rows_now[waiting].error).message.startswith(f"{rows.POOL} was deleted while")
    assert rows_now[running].state == State.QUEUED  # it is claimed, and starts
    with pytest.raises(FailedPrecondition, match="1 unfinished"):
        await database.write(pools.remove, rows.POOL)


async def test_of_two_default_pools_the_one_applied_last_serves(database: Database) -> None:
    await database.write(rows.add_pool, "pools/test.a")
    await database.write(rows.add_pool, "pools/test.b")
    serving = await database.read(pools.serving)
    assert serving["t2v-a14b-tiny"].name == "pools/test.b"
    await database.write(rows.add_pool, "pools/test.b", 0)
    serving = await database.read(pools.serving)
    assert serving["t2v-a14b-tiny"].name == "pools/test.a"


async def test_a_request_id_names_one_request_even_after_its_generation_is_deleted(database: Database) -> None:
    generation = await database.write(lambda tx: rows.add_generation(tx, request_id="r1"))
    assert await database.read(generations.find_request, "default", "r1", "d") == generation
    assert await database.read(generations.find_request, "other", "r1", "d") is None
    with pytest.raises(AlreadyExists, match=generation):
        await database.read(generations.find_request, "default", "r1", "another digest")
    await database.write(lifecycle.request_cancel, generation)
    await database.write(lambda tx: generations.remove(tx, generations.get(tx, "default", generation)))
    await database.write(generations.forget_requests)  # it was not deleted 7 days ago
    assert await database.read(generations.find_request, "default", "r1", "d") == generation
    await database.write(lambda tx: tx.execute(update(requests).values(free_time=requests.c.free_time - WEEK)))
    await database.write(generations.forget_requests)
    assert await database.read(generations.find_request, "default", "r1", "d") is None


async def test_a_request_id_stays_taken_as_long_as_its_generation_is_there(database: Database) -> None:
    generation = await database.write(lambda tx: rows.add_generation(tx, request_id="r1"))
    await database.write(lambda tx: tx.execute(update(requests).values(create_time=0)))
    await database.write(generations.forget_requests)
    assert await database.read(generations.find_request, "default", "r1", "d") == generation


async def test_a_pool_learns_its_speed_and_forgets_it_with_its_version(database: Database) -> None:
    await database.write(rows.add_pool)
    done = Work(1.0, 1.0, 1.0)
    await database.write(pools.learn, rows.POOL, done, 40.0)
    model = CostModel.from_json((await database.read(pools.get, rows.POOL)).cost_model)
    assert model.count == 1
    assert model.seconds(done) == pytest.approx(40.0)
    await database.write(rows.add_pool, rows.POOL, 7)
    assert (await database.read(pools.get, rows.POOL)).cost_model is not None
    await database.write(lambda tx: rows.add_pool(tx, version=rows.VERSION[:-1] + "1"))
    assert (await database.read(pools.get, rows.POOL)).cost_model is None
