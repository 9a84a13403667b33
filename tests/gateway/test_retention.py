from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from wan22.errors import DataLoss, InvalidRequest, NotFound, Reason
from wan22.v1.generation_pb2 import Generation
from wan22_gateway.housekeeping import keep_house
from wan22_gateway.result_places import open_place
from wan22_gateway.results import Results, recipe_key, video_key
from wan22_gateway.retention import DAY, MAX_KEEP, Retention
from wan22_gateway.store import generations, media, objects
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.schema import events, media_uses, requests
from wan22_gateway.store.schema import generations as table
from wan22_gateway.store.schema import media as media_table
from wan22_gateway.store.schema import objects as objects_table
from wan22_gateway.store.sqlite import SqliteDatabase

from . import rows
from .scripted_worker import T2V, ScriptedWorkerServicer, gateway_with, until, until_refused

HOUR = 3600 * 1_000_000
MEDIA = "a" * 64


def make_video(tx: Transaction, /, *, ended_ago: int = 0, expires_in: int | None = None, **more: Any) -> str:
    """A SUCCEEDED generation whose objects are live."""
    generation = rows.add_generation(tx, **more)
    key = video_key(generation, 1, 1)
    for made in (key, recipe_key(key)):
        objects.begin(tx, made)
        objects.commit(tx, made)
    values = {
        "state": "SUCCEEDED",
        "end_time": tx.now - ended_ago,
        "video_key": key,
        "video_size": 3,
        "video_digest": "sha256:" + "0" * 64,
        "video_expire_time": None if expires_in is None else tx.now + expires_in,
    }
    tx.execute(update(table).where(table.c.id == generation).values(values))
    return generation


def add_media(tx: Transaction, media_id: str = MEDIA, tenant: str = "default", *, unused_for: int = 0) -> str:
    key = f"media/{tenant}/{media_id}-{uuid.uuid4()}.png"
    objects.begin(tx, key)
    media.add(tx, tenant, media_id, (64, 32), 100, key)
    mine = (media_table.c.id == media_id) & (media_table.c.tenant == tenant)
    tx.execute(update(media_table).where(mine).values(use_time=tx.now - unused_for))
    return key


def all_of(column: Any) -> Callable[[Transaction], list[Any]]:
    return lambda tx: sorted(tx.execute(select(column)).scalars())


@given(
    st.sampled_from([0.0, 0.5, 1.0, 400.0]), st.sampled_from([0.0, 0.5, 7.0]), st.one_of(st.none(), st.floats(0, 1e9))
)
def test_a_video_is_kept_as_asked_within_what_both_settings_allow(
    video: float, generation: float, wanted: float | None
) -> None:
    retention = Retention.of_days(video, generation, 30)
    limits = [round(days * DAY) for days in (video, generation) if days]
    asked = None
    if wanted is not None:
        asked = Duration()
        asked.FromMicroseconds(round(wanted * 1_000_000))
    if asked is None:
        assert retention.keep_for(None) == min(limits, default=None)
    elif 1_000_000 <= asked.ToMicroseconds() <= min(limits, default=MAX_KEEP):
        assert retention.keep_for(asked) == asked.ToMicroseconds()
    else:
        with pytest.raises(InvalidRequest, match="keep_for is"):
            retention.keep_for(asked)


async def test_a_video_past_its_time_is_let_go_and_its_generation_stays(database: Database) -> None:
    await database.write(rows.add_pool)
    over = await database.write(lambda tx: make_video(tx, expires_in=-1))
    not_yet = await database.write(lambda tx: make_video(tx, expires_in=HOUR))
    kept = await database.write(make_video)
    assert await database.write(generations.expire_videos) == 1
    assert await database.write(generations.expire_videos) == 0
    key = video_key(over, 1, 1)
    assert sorted(await database.read(objects.garbage)) == [key, recipe_key(key)]
    row = await database.read(generations.get, "default", over)
    assert (row.state, row.video_key, row.video_size) == ("SUCCEEDED", None, 3)
    for other in (not_yet, kept):
        assert (await database.read(generations.get, "default", other)).video_key == video_key(other, 1, 1)


async def test_a_video_that_answers_two_generations_is_there_until_both_let_it_go(database: Database) -> None:
    await database.write(rows.add_pool)
    first = await database.write(make_video)
    second = await database.write(lambda tx: make_video(tx, expires_in=-1))
    shared = video_key(first, 1, 1)
    share = update(table).where(table.c.id == second).values(video_key=shared)
    await database.write(lambda tx: tx.execute(share))
    await database.write(lambda tx: generations.remove(tx, generations.get(tx, "default", first)))
    assert shared not in await database.read(objects.garbage)
    await database.write(generations.expire_videos)
    assert {shared, recipe_key(shared)} <= set(await database.read(objects.garbage))


async def test_old_generations_go_with_all_they_have_and_unfinished_ones_never(database: Database) -> None:
    await database.write(rows.add_pool)
    old = await database.write(lambda tx: make_video(tx, ended_ago=2 * HOUR, request_id="r1"))
    young = await database.write(lambda tx: make_video(tx, ended_ago=HOUR // 2))
    queued = await database.write(rows.add_generation)
    assert await database.write(generations.remove_old, HOUR) == 1
    assert await database.read(all_of(table.c.id)) == sorted([young, queued])
    assert old not in await database.read(all_of(events.c.generation))
    assert video_key(old, 1, 1) in await database.read(objects.garbage)
    assert await database.read(generations.find_request, "default", "r1", "d") == old  # for another 7 days
    assert await database.read(all_of(requests.c.free_time)) != [None]


async def test_an_image_is_kept_while_a_generation_refers_to_it_and_for_its_time_after_that(database: Database) -> None:
    await database.write(rows.add_pool)
    key = await database.write(lambda tx: add_media(tx, unused_for=2 * HOUR))
    other = await database.write(lambda tx: add_media(tx, tenant="other", unused_for=HOUR // 2))
    generation = await database.write(lambda tx: make_video(tx, media=(MEDIA,)))
    await database.write(lambda tx: tx.execute(update(media_table).values(use_time=tx.now - 2 * HOUR)))
    touched = update(media_table).where(media_table.c.tenant == "other")
    await database.write(lambda tx: tx.execute(touched.values(use_time=tx.now - HOUR // 2)))
    assert await database.write(media.forget_unused, HOUR) == 0
    await database.write(lambda tx: generations.remove(tx, generations.get(tx, "default", generation)))
    assert await database.read(all_of(media_uses.c.media)) == []
    assert await database.write(media.forget_unused, HOUR) == 0  # its time began anew
    await database.write(lambda tx: tx.execute(update(media_table).values(use_time=media_table.c.use_time - 2 * HOUR)))
    assert await database.write(media.forget_unused, HOUR) == 2
    assert {key, other} <= set(await database.read(objects.garbage))
    with pytest.raises(NotFound, match=f"media/{MEDIA} does not exist"):
        await database.write(lambda tx: rows.add_generation(tx, media=(MEDIA,)))


async def test_of_two_uploads_of_one_image_at_once_one_is_kept(database: Database) -> None:
    first = await database.write(add_media)
    second = await database.write(add_media)
    assert await database.read(objects.garbage) == [second]
    assert (await database.read(media.get, "default", MEDIA)).key == first


async def test_housekeeping_deletes_what_is_over_and_what_was_never_finished(tmp_path: Path, location: str) -> None:
    results = Results(open_place(location))
    database = SqliteDatabase(tmp_path / "store")
    try:
        await database.write(rows.add_pool)
        over = await database.write(lambda tx: make_video(tx, expires_in=-1))
        kept = await database.write(make_video)
        unfinished = video_key(str(uuid.uuid4()), 1, 1)  # of a process that was killed before its commit
        await database.write(objects.begin, unfinished)
        keys = [video_key(over, 1, 1), recipe_key(video_key(over, 1, 1)), unfinished]
        for key in (*keys, video_key(kept, 1, 1)):
            await results.put(key, b"abc")
        await database.write(objects.abandon_pending)  # as its successor does
        keeper = asyncio.create_task(keep_house(database, results, Retention(None, None, None)))
        try:
            async with asyncio.timeout(60):
                await until(lambda: database.read(lambda tx: len(all_of(objects_table.c.key)(tx)) == 2))
        finally:
            keeper.cancel()
        for key in keys:
            with pytest.raises(DataLoss):
                await results.size(key)
        assert await results.size(video_key(kept, 1, 1)) == 3
    finally:
        await database.close()


async def test_an_expired_video_is_not_found_and_says_since_when(tmp_path: Path) -> None:
    worker = ScriptedWorkerServicer()
    async with asyncio.timeout(60), gateway_with(tmp_path, worker, video_retention_days=1.0) as client:
        kept = await client.wait((await client.create(variant=T2V, prompt="p")).name)
        assert (kept.video.expire_time.ToMicroseconds() - kept.end_time.ToMicroseconds()) == DAY
        assert kept.keep_for.ToMicroseconds() == DAY
        with pytest.raises(InvalidRequest, match="keep_for is 86401 s: use 1 s to 86400 s"):
            await client.create(variant=T2V, prompt="p", keep_for=86401)
        made = await client.create(variant=T2V, prompt="p", keep_for=1)
        done = await client.wait(made.name)
        told = [event.state_change.video async for event in client.watch(made.name)]
        assert told[-1] == done.video
        for call in (
            lambda: client.download(made.name, tmp_path / "out.mp4"),
            lambda: client.recipe(made.name),
            lambda: client.download_url(made.name),
        ):
            error = await until_refused(call)
            assert isinstance(error, NotFound)
            assert error.reason is Reason.VIDEO_EXPIRED
            assert error.message.startswith(f"The video of {made.name} was kept until 20")
        after = await client.get(made.name)
        assert (after.state, after.video) == (Generation.SUCCEEDED, done.video)
        await client.download(kept.name, tmp_path / "kept.mp4")
