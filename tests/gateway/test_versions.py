"""Workers of two model versions in one pool, while one version replaces the other."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from wan22.v1 import inference_pb2, pool_pb2
from wan22_gateway import demand, generation_messages, lifecycle, outcome
from wan22_gateway.store import checkpoints, claims, generations, objects, pools
from wan22_gateway.store.claims import Claim, Loss
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.schema import workers

from . import rows

OLD, NEW = rows.VERSION, rows.VERSION[:-1] + "1"
LEASE = 15.0


def claim(tx: Transaction, resume_wait: float = 60.0) -> Claim | None:
    return claims.claim_next(tx, "owner", LEASE, resume_wait)


async def rolling(database: Database) -> tuple[str, str]:
    """A pool between two versions with a generation of each, the earlier one first."""
    await database.write(rows.add_pool)
    old = await database.write(rows.add_generation)
    await database.write(lambda tx: rows.add_pool(tx, version=NEW, earlier=(OLD,)))
    new = await database.write(lambda tx: rows.add_generation(tx, version=NEW))
    return old, new


async def pool_of(database: Database) -> pool_pb2.Pool:
    return await database.read(lambda tx: demand.pool_message(tx, pools.get(tx, rows.POOL), complete=True))


async def waiting_for(database: Database, generation: str) -> str:
    def read(tx: Transaction) -> str:
        return generation_messages.waiting_for(tx, generations.get(tx, "default", generation))

    return await database.read(read)


async def test_each_worker_takes_what_was_accepted_with_its_version_and_nothing_else(database: Database) -> None:
    old, new = await rolling(database)
    await database.write(lambda tx: rows.add_worker(tx, "workers/new", version=NEW))
    taken = await database.write(claim)
    assert taken is not None
    assert (taken.fence.generation, taken.worker) == (new, "workers/new")
    await database.write(lambda tx: rows.add_worker(tx, "workers/newer", version=NEW))
    assert await database.write(claim) is None  # the other one is older, and waits all the same
    assert await waiting_for(database, old) == (
        f"a worker that holds {OLD}: those of {rows.POOL} hold another version now"
    )
    await database.write(lambda tx: rows.add_worker(tx, "workers/old", version=OLD))
    assert await waiting_for(database, old) == "its turn"
    taken = await database.write(claim)
    assert taken is not None
    assert (taken.fence.generation, taken.worker) == (old, "workers/old")


async def test_a_busy_worker_prepares_only_what_is_of_its_version(database: Database) -> None:
    old, new = await rolling(database)
    await database.write(lambda tx: rows.add_worker(tx, "workers/old", version=OLD))
    await database.write(lambda tx: rows.add_worker(tx, "workers/new", version=NEW))
    for _ in range(2):
        taken = await database.write(claim)
        assert taken is not None
        await database.write(lifecycle.start, taken.fence, taken.worker, "uid")
    next_of_new = await database.write(lambda tx: rows.add_generation(tx, version=NEW))
    taken = await database.write(claim)
    assert taken is not None
    assert (taken.fence.generation, taken.worker) == (next_of_new, "workers/new")
    assert await database.write(claim) is None
    assert {old, new} == {worker.generation.partition("/")[2] for worker in (await pool_of(database)).workers}


async def test_a_lost_worker_of_an_earlier_version_is_waited_for_and_the_checkpoint_kept(database: Database) -> None:
    old, _ = await rolling(database)
    await database.write(lambda tx: rows.add_worker(tx, "workers/old", version=OLD))
    taken = await database.write(claim)
    assert taken is not None
    await database.write(lifecycle.start, taken.fence, taken.worker, "uid")
    made = inference_pb2.Checkpoint(step=3, size_bytes=7, digest="sha256:0", numerics_digest="n1")
    await database.write(objects.begin, "a key")
    await database.write(checkpoints.add, old, 1, "a key", made)
    await database.write(outcome.lost, taken, Loss("it is gone", died=False))
    await database.write(lambda tx: rows.add_worker(tx, "workers/old", version=OLD, lease=-1.0))
    await database.write(lambda tx: rows.add_worker(tx, "workers/new", version=NEW))
    other = await database.write(claim, 0.0)  # nothing is waited for any longer
    assert other is not None
    assert other.fence.generation != old
    await database.write(lambda tx: rows.add_worker(tx, "workers/older", version=OLD))
    again = await database.write(claim)
    assert again is not None
    assert (again.fence.generation, again.fence.attempt, again.worker) == (old, 2, "workers/older")
    assert [row.step for row in await database.read(checkpoints.newest, old)] == [3]


async def test_a_pool_tells_what_only_workers_of_an_earlier_version_can_do(database: Database) -> None:
    old, new = await rolling(database)
    await database.write(lambda tx: rows.add_generation(tx, predicted=30.0))
    await database.write(lambda tx: rows.add_worker(tx, "workers/old", version=OLD))
    told = await pool_of(database)
    assert (told.model_version, list(told.earlier_versions)) == (NEW, [OLD])
    assert [worker.model_version for worker in told.workers] == [OLD]
    assert list(told.demand.earlier) == [pool_pb2.EarlierWork(model_version=OLD, queued=2, queued_seconds=40.0)]
    taken = await database.write(claim)
    assert taken is not None
    assert taken.fence.generation == old
    await database.write(lifecycle.start, taken.fence, taken.worker, "uid")
    (work,) = (await pool_of(database)).demand.earlier
    assert (work.queued, work.queued_seconds, work.running) == (1, 30.0, 1)
    assert sum(bucket.count for bucket in (await pool_of(database)).demand.queued) == 2  # all of it, new ones too
    await database.write(lifecycle.request_cancel, new)
    assert sum(bucket.count for bucket in (await pool_of(database)).demand.queued) == 1


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_a_worker_that_an_older_gateway_has_written_down_is_of_its_pools_version(
    database: Database, version: str
) -> None:
    await rolling(database)
    await database.write(rows.add_worker)
    await database.write(lambda tx: tx.execute(update(workers).values(model_version=None)))
    await database.write(lambda tx: rows.add_pool(tx, version=version))
    taken = await database.write(claim)
    assert taken is not None
    row = await database.read(generations.get, "default", taken.fence.generation)
    assert row.model_version == version
