"""Which checkpoints are kept, which worker a generation that has one waits for, and what one says about a death."""

from __future__ import annotations

import pytest
from google.rpc import status_pb2
from sqlalchemy import select, update

from wan22.errors import InternalError, Reason
from wan22.status import from_status
from wan22.v1 import generation_pb2, inference_pb2
from wan22_gateway import generation_messages, lifecycle, outcome
from wan22_gateway.lifecycle import Fence, State
from wan22_gateway.store import checkpoints, claims, generations, objects, quarantine
from wan22_gateway.store.claims import Claim, Loss
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.schema import generations as generation_table
from wan22_gateway.store.schema import objects as object_table

from . import rows

RESUME_WAIT = 60.0
DIED = Loss("it died", died=True)


def claim(tx: Transaction) -> Claim | None:
    return claims.claim_next(tx, "owner", 15.0, RESUME_WAIT)


def start(tx: Transaction) -> Claim:
    """A running attempt, which goes on from the newest checkpoint."""
    claimed = claim(tx)
    assert claimed is not None
    step = max(kept(tx, claimed.fence.generation), default=0)
    assert lifecycle.start(tx, claimed.fence, claimed.worker, f"uid-{claimed.worker}", resumed_step=step)
    return claimed


def begin(tx: Transaction) -> Claim:
    """The first attempt of the only generation, on the only worker."""
    rows.add_pool(tx)
    rows.add_worker(tx)
    rows.add_generation(tx)
    return start(tx)


def keep(tx: Transaction, fence: Fence, *steps: int, numerics: str = "n1") -> None:
    for step in steps:
        key = f"{fence.attempt}-{step}"
        made = inference_pb2.Checkpoint(step=step, size_bytes=1, digest="d", numerics_digest=numerics)
        objects.begin(tx, key)
        checkpoints.add(tx, fence.generation, fence.attempt, key, made)


def states(tx: Transaction) -> dict[str, str]:
    return {row.key: row.state for row in tx.execute(select(object_table)).all()}


def kept(tx: Transaction, generation: str) -> list[int]:
    return [row.step for row in checkpoints.newest(tx, generation)]


def wait(tx: Transaction, seconds: float) -> None:
    """Puts the loss of the worker that far back."""
    earlier = generation_table.c.requeue_time - round(seconds * 1_000_000)
    tx.execute(update(generation_table).values(requeue_time=earlier))


async def test_the_newest_two_are_kept_and_the_rest_is_garbage(database: Database) -> None:
    taken = await database.write(begin)
    await database.write(keep, taken.fence, 1, 2, 3)
    assert await database.read(kept, taken.fence.generation) == [3, 2]
    assert await database.read(states) == {"1-1": "garbage", "1-2": "live", "1-3": "live"}


@pytest.mark.parametrize("final", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
async def test_none_is_kept_beyond_the_final_state(database: Database, final: State) -> None:
    taken = await database.write(begin)
    await database.write(keep, taken.fence, 1, 2)
    if final is State.SUCCEEDED:
        assert await database.write(lifecycle.succeed, taken.fence, lifecycle.StoredVideo("v", 1, "d"))
    elif final is State.FAILED:
        await database.write(lifecycle.fail, taken.fence, InternalError("it failed"))
    else:
        await database.write(lifecycle.cancelled, taken.fence)
    assert await database.read(kept, taken.fence.generation) == []
    assert set((await database.read(states)).values()) == {"garbage"}


async def test_an_attempt_that_starts_anew_gives_up_what_was_kept_and_says_why(database: Database) -> None:
    taken = await database.write(begin)
    await database.write(keep, taken.fence, 1, 2)
    await database.write(outcome.lost, taken, DIED)
    again = await database.write(claim)
    assert again is not None
    assert await database.read(kept, taken.fence.generation) == [2, 1]  # a claim alone costs nothing
    await database.write(lambda tx: lifecycle.start(tx, again.fence, again.worker, "u", restart_reason="other card"))
    assert await database.read(kept, taken.fence.generation) == []
    events = await database.read(generations.events_after, taken.fence.generation, 0)
    assert [e.attempt_start.restart_reason for e in events if e.HasField("attempt_start")] == ["", "other card"]


async def test_an_attempt_that_goes_on_gives_up_nothing(database: Database) -> None:
    taken = await database.write(begin)
    await database.write(keep, taken.fence, 1, 2)
    await database.write(outcome.lost, taken, DIED)
    again = await database.write(claim)
    assert again is not None
    await database.write(lambda tx: lifecycle.start(tx, again.fence, again.worker, "u", resumed_step=2))
    assert await database.read(kept, taken.fence.generation) == [2, 1]


async def test_it_goes_to_the_worker_of_equal_numerics_that_is_idle(database: Database) -> None:
    taken = await database.write(begin)
    await database.write(keep, taken.fence, 1)
    await database.write(outcome.lost, taken, DIED)
    await database.write(lambda tx: rows.add_worker(tx, "workers/a", numerics="n2"))
    again = await database.write(claim)
    assert again is not None
    assert again.worker == "workers/w1"  # although another name comes first


@pytest.mark.parametrize(("state", "numerics"), [("BUSY", "n1"), ("LOADING", ""), ("BROKEN", "n1")])
async def test_it_waits_for_a_worker_that_has_or_may_get_equal_numerics(
    database: Database, state: str, numerics: str
) -> None:
    taken = await database.write(begin)
    await database.write(keep, taken.fence, 1)
    await database.write(outcome.lost, taken, DIED)
    await database.write(lambda tx: rows.add_worker(tx, state=state, numerics=numerics))
    await database.write(lambda tx: rows.add_worker(tx, "workers/w2", numerics="n2"))
    assert await database.write(claim) is None
    row = await database.read(generations.get, "default", taken.fence.generation)
    expected = "its turn" if state == "BUSY" else "a worker of the same numerics, to go on from step 1"
    assert await database.read(generation_messages.waiting_for, row) == expected
    later = await database.write(rows.add_generation)  # holds nobody up meanwhile
    other = await database.write(claim)
    assert other is not None
    assert other.fence.generation == later
    await database.write(lambda tx: rows.add_worker(tx, "workers/w3", numerics="n2"))
    await database.write(wait, RESUME_WAIT)
    again = await database.write(claim)
    assert again is not None
    assert (again.fence.generation, again.worker) == (taken.fence.generation, "workers/w3")


async def test_it_waits_for_nobody_where_all_have_other_numerics(database: Database) -> None:
    taken = await database.write(begin)
    await database.write(keep, taken.fence, 1)
    await database.write(outcome.lost, taken, DIED)
    await database.write(lambda tx: rows.add_worker(tx, numerics="n2"))
    assert await database.write(claim) is not None


async def test_a_death_after_a_checkpoint_does_not_count_towards_quarantine(database: Database) -> None:
    taken = await database.write(begin)
    for step in range(1, 6):
        await database.write(keep, taken.fence, step)
        await database.write(outcome.lost, taken, DIED)
        taken = await database.write(start)
    assert await database.read(quarantine.deaths, taken.fence.generation) == []
    for _ in range(2):  # from now on without getting anywhere
        await database.write(outcome.lost, taken, DIED)
        taken = await database.write(start)
    await database.write(outcome.lost, taken, DIED)
    assert len(await database.read(quarantine.deaths, taken.fence.generation)) == 3
    assert (await database.read(generations.get, "default", taken.fence.generation)).state == State.FAILED


@pytest.mark.parametrize(("step", "state"), [(90, State.QUEUED), (50, State.FAILED)])
async def test_a_deadline_is_held_against_what_is_left_to_do_from_the_checkpoint_on(
    database: Database, step: int, state: State
) -> None:
    claimed = await database.write(begin)
    await database.write(keep, claimed.fence, step)
    await database.write(outcome.lost, claimed, DIED)

    def hurry(tx: Transaction) -> None:
        """Of 100 s of work, too late for more than 20 s."""
        parameters = generation_pb2.Parameters(num_inference_steps=100).SerializeToString()
        values = {"deadline": tx.now + 20_000_000, "start_by_time": tx.now - 80_000_000, "predicted_seconds": 100.0}
        tx.execute(update(generation_table).values(parameters=parameters, **values))

    await database.write(hurry)
    await database.write(claims.fail_overdue)
    row = await database.read(generations.get, "default", claimed.fence.generation)
    assert row.state == state
    if state == State.FAILED:
        error = from_status(status_pb2.Status.FromString(row.error))
        assert (error.reason, "predicted to take 50 s" in error.message) == (Reason.DEADLINE_MISSED, True)
        assert await database.write(claim) is None
    else:
        again = await database.write(claim)
        assert again is not None
        assert again.fence.attempt == 2
