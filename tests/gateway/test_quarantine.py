from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from google.rpc import status_pb2
from sqlalchemy import update

from wan22.errors import FailedPrecondition, NotFound, Reason
from wan22.status import from_status
from wan22.v1 import generation_pb2, inference_pb2
from wan22_gateway import lifecycle, outcome
from wan22_gateway.lifecycle import State
from wan22_gateway.store import claims, generations, pools, quarantine
from wan22_gateway.store.claims import Claim, Loss
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.schema import generations as generation_table

from . import rows

DIED = Loss("it died", died=True)
SILENT = Loss("it does not answer", died=False, silent=True)
STEP = generation_pb2.Progress(stage=generation_pb2.Progress.DENOISING, step=3, num_steps=4)


@pytest.fixture
async def generation(database: Database) -> str:
    def prepare(tx: Transaction) -> str:
        rows.add_pool(tx)
        for worker in ("workers/w1", "workers/w2"):
            rows.add_worker(tx, worker)
        return rows.add_generation(tx)

    return await database.write(prepare)


def start(tx: Transaction) -> Claim:
    """One more attempt of the one generation."""
    taken = claims.claim_next(tx, "owner", 15.0, 0.0)
    assert taken is not None
    lifecycle.start(tx, taken.fence, taken.worker, f"uid-{taken.worker}")
    lifecycle.progress(tx, taken.fence, STEP)
    return taken


def back(tx: Transaction, name: str, incarnation: str) -> None:
    """A worker answers, as discovery takes it."""
    worker = inference_pb2.Worker(name=name, uid=f"uid-{name}", incarnation=incarnation, pool=rows.POOL)
    worker.state, worker.model_version = inference_pb2.Worker.IDLE, rows.VERSION
    quarantine.heard_again(tx, worker)
    pools.heard_from(tx, worker, rows.ADDRESS, 60.0)


def fall_silent(tx: Transaction, taken: Claim) -> None:
    worker = pools.get_worker(tx, taken.worker)
    rows.add_worker(tx, taken.worker, incarnation=worker.incarnation, lease=-1.0)
    assert pools.lose_silent(tx, rows.POOL, {rows.ADDRESS}, tx.now) == [taken.worker]
    loss = claims.loss(tx, taken)
    assert loss is not None
    assert loss.silent
    outcome.lost(tx, taken, loss)


async def state(database: Database, generation: str) -> tuple[State, Sequence[Any]]:
    row = await database.read(generations.get, "default", generation)
    return row.state, await database.read(quarantine.deaths, generation)


async def test_three_deaths_on_two_workers_quarantine_a_generation_with_the_evidence(
    database: Database, generation: str
) -> None:
    workers = []
    for _ in range(3):
        taken = await database.write(start)
        workers.append(taken.worker)
        await database.write(outcome.lost, taken, DIED)
    assert workers == ["workers/w1", "workers/w2", "workers/w1"]  # another one, where one is idle, is tried first
    row = await database.read(generations.get, "default", generation)
    assert row.state == State.FAILED
    error = from_status(status_pb2.Status.FromString(row.error))
    assert isinstance(error, FailedPrecondition)
    assert error.reason is Reason.QUARANTINED
    assert error.metadata["deaths"] == "3"
    assert error.metadata["attempts"] == "1, 2, 3"
    assert error.metadata["workers"] == "workers/w1, workers/w2, workers/w1"
    assert error.metadata["last_checkpoint_step"] == "0"
    assert len(error.metadata["times"].split(", ")) == 3
    (found,) = await database.read(lambda tx: quarantine.list_all(tx, released=False))
    assert (found.generation, found.tenant, found.pool) == (f"generations/{generation}", "tenants/default", rows.POOL)
    assert [(death.attempt, death.worker_uid) for death in found.deaths] == [
        (1, "uid-workers/w1"),
        (2, "uid-workers/w2"),
        (3, "uid-workers/w1"),
    ]
    assert all(death.progress == STEP for death in found.deaths)
    assert all(death.start_time.ToMicroseconds() <= death.end_time.ToMicroseconds() for death in found.deaths)


async def test_one_bad_worker_quarantines_nothing_while_there_is_another(database: Database, generation: str) -> None:
    await database.write(lambda tx: rows.add_worker(tx, "workers/w2", state="BUSY"))
    for _ in range(5):
        await database.write(outcome.lost, await database.write(start), DIED)
    assert (await state(database, generation))[0] == State.QUEUED
    await database.write(rows.add_worker, "workers/w2")
    await database.write(outcome.lost, await database.write(start), DIED)
    assert (await state(database, generation))[0] == State.FAILED


async def test_silence_does_not_count_towards_quarantine(database: Database, generation: str) -> None:
    for _ in range(5):
        await database.write(outcome.lost, await database.write(start), SILENT)
    now, deaths = await state(database, generation)
    assert (now, deaths) == (State.QUEUED, [])


async def test_a_worker_that_comes_back_after_its_lease_as_another_process_had_died(
    database: Database, generation: str
) -> None:
    for death in range(1, 4):
        taken = await database.write(start)
        await database.write(fall_silent, taken)
        assert len((await state(database, generation))[1]) == death - 1
        await database.write(back, taken.worker, f"again-{death}")
    now, deaths = await state(database, generation)
    assert (now, len(deaths)) == (State.FAILED, 3)


async def test_a_worker_that_comes_back_as_the_same_process_had_not_died(database: Database, generation: str) -> None:
    taken = await database.write(start)
    await database.write(fall_silent, taken)
    await database.write(back, taken.worker, "i1")
    await database.write(back, taken.worker, "i2")  # died later, under nothing
    assert (await state(database, generation))[1] == []


async def test_the_like_is_refused_to_its_tenant_until_it_is_released(database: Database, generation: str) -> None:
    parameters = generation_pb2.Parameters(prompt="x", seed=7, width=64)

    def like(**changes: Any) -> bytes:
        other = generation_pb2.Parameters()
        other.CopyFrom(parameters)
        for name, value in changes.items():
            setattr(other, name, value)
        return other.SerializeToString()

    def poison(tx: Transaction) -> None:
        tx.execute(update(generation_table).values(parameters=like()))

    await database.write(poison)
    for _ in range(3):
        await database.write(outcome.lost, await database.write(start), DIED)
    for given in (like(), like(seed=8)):
        with pytest.raises(FailedPrecondition, match=generation) as caught:
            await database.read(quarantine.check, "default", rows.VERSION, given)
        assert caught.value.reason is Reason.QUARANTINED
    await database.read(quarantine.check, "default", rows.VERSION, like(width=128))
    await database.read(quarantine.check, "default", rows.VERSION[:-1] + "1", like())
    await database.read(quarantine.check, "other", rows.VERSION, like())
    released = await database.write(quarantine.release, generation)
    assert released.HasField("release_time")
    assert await database.write(quarantine.release, generation) == released
    await database.read(quarantine.check, "default", rows.VERSION, like())
    assert await database.read(lambda tx: quarantine.list_all(tx, released=False)) == []
    assert await database.read(lambda tx: quarantine.list_all(tx, released=True)) == [released]
    assert (await state(database, generation))[0] == State.FAILED  # that is final
    assert released.parameters.prompt == ""
    assert released.parameters.width == 64


async def test_what_is_not_in_quarantine_is_not_released(database: Database, generation: str) -> None:
    with pytest.raises(NotFound, match=generation):
        await database.write(quarantine.release, generation)
