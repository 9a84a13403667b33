"""Previews in the gateway: the newest of what runs reaches who watches, at any replica, and none is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from wan22.errors import InternalError, InvalidRequest, Unavailable, Wan22Error
from wan22.v1.generation_pb2 import Generation, GenerationEvent, Preview
from wan22.v1.inference_pb2 import GenerateEvent
from wan22_gateway import lifecycle
from wan22_gateway.lifecycle import StoredVideo
from wan22_gateway.places import Places
from wan22_gateway.previews import flaw, known
from wan22_gateway.store import claims, generations, previews
from wan22_gateway.store.claims import Claim
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.opening import open_store
from wan22_gateway.store.schema import generations as generation_table
from wan22_gateway.store.schema import previews as preview_table
from wan22_gateway.watch import watch

from . import rows
from .preview_pictures import preview, webp
from .scripted_worker import T2V, ScriptedWorkerServicer, Start, accepted, gateway_with


def claim(tx: Transaction) -> Claim:
    claimed = claims.claim_next(tx, "owner", 15.0, 60.0)
    assert claimed is not None
    return claimed


def start(tx: Transaction) -> Claim:
    """A running attempt with previews, on the only worker."""
    rows.add_pool(tx)
    rows.add_worker(tx)
    rows.add_generation(tx, preview_interval=1)
    claimed = claim(tx)
    assert lifecycle.start(tx, claimed.fence, claimed.worker, "u1")
    return claimed


def kept(tx: Transaction) -> int:
    return int(tx.execute(select(func.count()).select_from(preview_table)).scalar_one())


def events(database: Database, claimed: Claim) -> AsyncIterator[GenerationEvent]:
    return watch(database, Places(database), "default", claimed.fence.generation, 0)


async def next_preview(stream: AsyncIterator[GenerationEvent]) -> Preview:
    async with asyncio.timeout(60):
        async for event in stream:
            if event.HasField("preview"):
                assert event.sequence == 0
                assert event.event_time.ToMicroseconds() > 0
                return event.preview
    raise AssertionError("the stream has ended")


async def test_a_late_watcher_gets_the_newest_and_each_one_once(database: Database) -> None:
    claimed = await database.write(start)
    for step in (1, 2):
        assert await database.write_own(lifecycle.preview, claimed.fence, preview(step))
    async with aclosing(events(database, claimed)) as late:  # type: ignore[type-var]  # it is a generator
        assert await next_preview(late) == preview(2)
        assert await database.write_own(lifecycle.preview, claimed.fence, preview(3))
        assert await next_preview(late) == preview(3)
        assert await database.read(kept) == 1
        stored = StoredVideo("key", 1, "sha256:" + "0" * 64)
        assert await database.write(lifecycle.succeed, claimed.fence, stored)
        rest = [event async for event in late]
    assert [event.state_change.state for event in rest] == [Generation.SUCCEEDED]


@pytest.mark.parametrize("end", ["succeed", "fail", "cancel"])
async def test_none_is_kept_beyond_the_final_state(database: Database, end: str) -> None:
    claimed = await database.write(start)
    assert await database.write_own(lifecycle.preview, claimed.fence, preview())
    if end == "succeed":
        await database.write(lifecycle.succeed, claimed.fence, StoredVideo("key", 1, "sha256:0"))
    elif end == "fail":
        await database.write(lifecycle.fail, claimed.fence, InternalError("It broke."))
    else:
        await database.write(lifecycle.cancelled, claimed.fence)
    assert await database.read(kept) == 0
    assert not await database.write_own(lifecycle.preview, claimed.fence, preview(2))
    assert await database.read(kept) == 0


async def test_one_of_an_attempt_that_is_lost_stays_until_another_starts_at_the_beginning(database: Database) -> None:
    claimed = await database.write(start)
    assert await database.write_own(lifecycle.preview, claimed.fence, preview(3))
    assert await database.write(lifecycle.requeue, claimed.fence, "it was lost")
    assert not await database.write_own(lifecycle.preview, claimed.fence, preview(4))  # by the owner of before
    assert await database.read(kept) == 1
    again = await database.write(claim)
    assert await database.write(lifecycle.start, again.fence, again.worker, "u1")
    assert await database.read(kept) == 0


async def test_what_a_gateway_without_previews_has_ended_is_swept(database: Database) -> None:
    claimed = await database.write(start)
    assert await database.write_own(lifecycle.preview, claimed.fence, preview())
    await database.write(previews.sweep)
    assert await database.read(kept) == 1
    await database.write(lambda tx: tx.execute(update(generation_table).values(state="SUCCEEDED", end_time=tx.now)))
    await database.write(previews.sweep)
    assert await database.read(kept) == 0


async def test_it_is_deleted_with_its_generation(database: Database) -> None:
    claimed = await database.write(start)
    assert await database.write_own(lifecycle.preview, claimed.fence, preview())
    name = claimed.fence.generation
    await database.write(lambda tx: tx.execute(update(generation_table).values(state="SUCCEEDED", end_time=tx.now)))
    await database.write(lambda tx: generations.remove(tx, generations.get(tx, "default", name)))
    assert await database.read(kept) == 0


async def test_who_watches_at_another_replica_sees_it_too(postgres_store: str) -> None:
    owner, other = [await open_store(postgres_store, None) for _ in range(2)]
    try:
        claimed = await owner.write(start)
        async with aclosing(events(other, claimed)) as stream:  # type: ignore[type-var]  # it is a generator
            await anext(stream)
            for step in (1, 2):
                await owner.write_own(lifecycle.preview, claimed.fence, preview(step))
                assert await next_preview(stream) == preview(step)
    finally:
        await owner.close()
        await other.close()


async def test_only_who_asks_gets_previews_and_is_told_the_interval(tmp_path: Path) -> None:
    def script(start: Start) -> list[GenerateEvent | Wan22Error]:
        assert start.preview_interval == 0
        return [accepted(start), GenerateEvent(preview=preview()), Unavailable("cut")]

    worker = ScriptedWorkerServicer(script)
    async with asyncio.timeout(60), gateway_with(tmp_path, worker) as client:
        plain = await client.create(variant=T2V, prompt="a red circle")
        seen = [event async for event in client.watch(plain.name)]
        assert not any(event.HasField("preview") for event in seen)
        asked = await client.create(variant=T2V, prompt="a red circle", preview_interval=7)
        done = await client.wait(asked.name)
        with pytest.raises(InvalidRequest, match="preview_interval is 101: use 1 to 100") as caught:
            await client.create(variant=T2V, prompt="a red circle", preview_interval=101)
    assert (plain.preview_interval, asked.preview_interval, done.preview_interval) == (0, 7, 7)
    assert worker.starts[-1].preview_interval == 7
    assert plain.parameters.prompt == asked.parameters.prompt
    assert caught.value.violations[0].field == "generation.preview_interval"


HOSTILE = {
    "a step that is none": preview(4, 4),
    "a step before the first": preview(0, 4),
    "too many steps": preview(1, 101),
    "no image": Preview(step=1, num_steps=4, width=8, height=6),
    "another kind of image": Preview(step=1, num_steps=4, width=8, height=6, image=b"\xff\xd8\xff\xe0" + bytes(100)),
    "another size than it says": Preview(step=1, num_steps=4, width=9, height=6, image=webp()),
    "too large a size": preview(1, 4, 257, 6),
    "too many bytes": Preview(step=1, num_steps=4, width=8, height=6, image=webp() + bytes(64 << 10)),
    "bytes behind its end": Preview(step=1, num_steps=4, width=8, height=6, image=webp() + b"x"),
}


@pytest.mark.parametrize("given", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_preview_that_is_none_is_refused(given: Preview) -> None:
    assert flaw(given, 1)
    assert not flaw(preview(), 1)
    assert flaw(preview(), None) == "nobody asked for it"


async def test_a_hostile_workers_previews_are_dropped_and_logged_once_without_their_content(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = Preview(step=1, num_steps=4, width=8, height=6, image=b"the secret of alice" * 10)

    def script(start: Start) -> list[GenerateEvent | Wan22Error]:
        bad = [GenerateEvent(preview=given) for given in (*HOSTILE.values(), secret)]
        return [accepted(start), *bad, Unavailable("cut")]

    worker = ScriptedWorkerServicer(script)
    async with asyncio.timeout(60), gateway_with(tmp_path, worker) as client:
        made = await client.create(variant=T2V, prompt="a red circle", preview_interval=1)
        seen = [event async for event in client.watch(made.name)]
    assert not any(event.HasField("preview") for event in seen)
    assert seen[-1].state_change.state == Generation.SUCCEEDED
    refused = [text for text in caplog.messages if "preview is refused" in text]
    assert refused == [f"{made.name}: workers/w1's preview is refused: it is of step 4 of 4."]
    assert "secret" not in caplog.text


def test_fields_that_nobody_looked_at_are_not_stored() -> None:
    stuffed = Preview.FromString(preview().SerializeToString() + b"\xfa\x3f\x03abc")  # field 1023, three bytes
    assert stuffed.ByteSize() > preview().ByteSize()
    assert known(stuffed) == preview()
