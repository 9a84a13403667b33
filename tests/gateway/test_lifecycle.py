from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

from wan22.errors import InternalError, InvalidRequest
from wan22.v1 import generation_pb2
from wan22_gateway import lifecycle
from wan22_gateway.lifecycle import FINAL, NEXT, Fence, State, StoredVideo
from wan22_gateway.store import claims, generations, quarantine
from wan22_gateway.store.claims import Claim
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.generations import GenerationRow
from wan22_gateway.store.opening import open_store
from wan22_gateway.store.schema import attempts, events, workers
from wan22_gateway.store.schema import generations as generation_table

from . import rows

VIDEO = StoredVideo("videos/x", 3, "sha256:" + "1" * 64)


def row(tx: Transaction, generation: str) -> GenerationRow:
    return generations.get(tx, "default", generation)


def claim(tx: Transaction) -> tuple[str, Claim]:
    rows.add_pool(tx)
    rows.add_worker(tx)
    generation = rows.add_generation(tx)
    claimed = claims.claim_next(tx, "owner", 15.0, 60.0)
    assert claimed is not None
    assert claimed.fence.generation == generation
    return generation, claimed


def start(tx: Transaction, claimed: Claim) -> bool:
    return lifecycle.start(tx, claimed.fence, claimed.worker, "uid")


async def test_an_undisturbed_generation_has_numbered_events_without_gaps(database: Database) -> None:
    generation, claimed = await database.write(claim)
    await database.write(start, claimed)
    step = generation_pb2.Progress(stage=generation_pb2.Progress.DENOISING, step=1, num_steps=4)
    assert await database.write(lifecycle.progress, claimed.fence, step)
    assert await database.write(lifecycle.succeed, claimed.fence, VIDEO)
    history = await database.read(generations.events_after, generation, 0)
    assert [event.sequence for event in history] == [1, 2, 3, 4, 5]
    assert [event.WhichOneof("event") for event in history] == [
        "state_change",
        "state_change",
        "attempt_start",
        "progress",
        "state_change",
    ]
    assert history[-1].state_change.video.digest == VIDEO.digest
    final = await database.read(row, generation)
    assert (final.state, final.video_key, final.attempt_count) == (State.SUCCEEDED, VIDEO.key, 1)
    assert final.claimed_worker is None


async def test_the_first_final_state_wins(database: Database) -> None:
    generation, claimed = await database.write(claim)
    await database.write(start, claimed)
    await database.write(lifecycle.request_cancel, generation)
    assert await database.write(lifecycle.succeed, claimed.fence, VIDEO)
    assert not await database.write(lifecycle.cancelled, claimed.fence)
    assert (await database.read(row, generation)).state == State.SUCCEEDED


async def test_cancel_of_an_unclaimed_generation_is_final_at_once(database: Database) -> None:
    generation = await database.write(rows.add_generation)
    await database.write(lifecycle.request_cancel, generation)
    ended = await database.read(row, generation)
    assert ended.state == State.CANCELLED
    await database.write(lifecycle.request_cancel, generation)  # again: nothing changes
    assert await database.read(row, generation) == ended


async def test_a_lost_worker_gives_the_generation_back_with_the_same_place(database: Database) -> None:
    generation, claimed = await database.write(claim)
    later = await database.write(rows.add_generation)
    await database.write(start, claimed)
    await database.write(lifecycle.note_end, claimed.fence, "died")
    await database.write(lifecycle.requeue, claimed.fence, "gone")
    assert not await database.write(start, claimed)  # the claim is over, though nobody has a newer one
    again = await database.write(claims.claim_next, "owner", 15.0, 60.0)
    assert again is not None
    assert again.fence.generation == generation != later
    assert again.fence.attempt == 2
    assert again.fence.owner_epoch > claimed.fence.owner_epoch
    assert len(await database.read(quarantine.deaths, generation)) == 1


@pytest.mark.parametrize(("seconds", "nanos"), [(1 << 62, 0), (-(1 << 63), 0), (253_402_300_800, 0), (1, -1)])
def test_a_time_that_the_protocol_does_not_allow_is_refused_by_name(seconds: int, nanos: int) -> None:
    with pytest.raises(InvalidRequest, match=f"deadline is {seconds} s and {nanos} ns") as caught:
        lifecycle.microseconds(Timestamp(seconds=seconds, nanos=nanos), "deadline")
    assert [violation.field for violation in caught.value.violations] == ["deadline"]
    assert lifecycle.microseconds(lifecycle.timestamp(7), "deadline") == 7


OPERATIONS = st.sampled_from(
    ["claim", "start", "succeed", "fail", "cancelled", "requeue", "request_cancel", "take_over"]
)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as opened:
        yield opened


@pytest.fixture
def one_database(runner: asyncio.Runner, store: Path | str) -> Iterator[Database]:
    """One store for all examples: opening one takes longer than an example."""
    database = runner.run(open_store(store, None))
    yield database
    runner.run(database.close())


@settings(max_examples=100)
@example(["claim", "start", "requeue", "start", "claim", "start"])
@given(st.lists(OPERATIONS, max_size=12))
def test_any_order_of_events_keeps_the_rules(
    runner: asyncio.Runner, one_database: Database, operations: list[str]
) -> None:
    async def run(database: Database) -> None:
        generation = await database.write(_only_one)
        fence = Fence(generation, 0, 0)
        seen = [State.QUEUED]
        for operation in operations:
            fence = await database.write(_apply, operation, fence)
            state = State((await database.read(row, generation)).state)
            if state != seen[-1]:
                assert state in NEXT[seen[-1]], f"{seen[-1]} -> {state}"
                seen.append(state)
        final = await database.read(row, generation)
        assert (final.state == State.SUCCEEDED) == (final.video_key is not None)
        assert (final.state in FINAL) == (final.end_time is not None)
        if final.state in FINAL:
            assert final.claimed_worker is None
        sequences = await database.read(_sequences, generation)
        assert sequences == list(range(1, final.last_sequence + 1))

    runner.run(run(one_database))


def _only_one(tx: Transaction) -> str:
    """A store with one queued generation and one idle worker."""
    for table in (events, attempts, generation_table, workers):
        tx.execute(delete(table))
    rows.add_pool(tx)
    rows.add_worker(tx)
    return rows.add_generation(tx)


def _sequences(tx: Transaction, generation: str) -> list[int]:
    query = select(events.c.sequence).where(events.c.generation == generation).order_by(events.c.sequence)
    return list(tx.execute(query).scalars())


def _apply(tx: Transaction, operation: str, fence: Fence) -> Fence:
    match operation:
        case "claim":
            claimed = claims.claim_next(tx, "owner", 15.0, 60.0)
            return claimed.fence if claimed else fence
        case "take_over":
            taken = claims.take_over(tx, "owner", 15.0, everything=True)
            return taken[0].fence if taken else fence
        case "start":
            lifecycle.start(tx, fence, "workers/w1", "uid")
        case "succeed":
            lifecycle.succeed(tx, fence, VIDEO)
        case "fail":
            lifecycle.fail(tx, fence, InternalError("broken"))
        case "cancelled":
            lifecycle.cancelled(tx, fence)
        case "requeue":
            lifecycle.requeue(tx, fence, "lost")
        case "request_cancel":
            lifecycle.request_cancel(tx, fence.generation)
        case _:
            pytest.fail(operation)
    return fence
