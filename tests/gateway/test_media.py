from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import select

from wan22.errors import DataLoss, DeadlineExceeded, InvalidRequest, NotFound, Reason, ResourceExhausted
from wan22_gateway.arriving import LARGE_AT_ONCE, SMALL_BYTES
from wan22_gateway.media import MediaLibrary
from wan22_gateway.result_places import open_place
from wan22_gateway.results import Results
from wan22_gateway.store import media, tenants
from wan22_gateway.store.database import Database
from wan22_gateway.store.schema import objects as object_table
from wan22_gateway.store.tenants import Limits
from wan22_gateway.usage_messages import quota_message


def picture(red: int = 1) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (64, 32), (red, 2, 3)).save(data, "PNG")
    return data.getvalue()


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def read(library: MediaLibrary, tenant: str, media_id: str) -> bytes:
    return b"".join([chunk async for chunk in library.read(tenant, media_id)])


@pytest.fixture
def library(database: Database, location: str) -> MediaLibrary:
    return MediaLibrary(database, Results(open_place(location)))


async def test_an_image_is_kept_once_for_each_tenant_under_a_key_of_its_own(
    library: MediaLibrary, database: Database
) -> None:
    first = await library.add("alice", chunks(picture()))
    again = await library.add("alice", chunks(picture()))
    assert (first, first.width, first.height) == (again, 64, 32)
    key = (await database.read(media.get, "alice", first.id)).key
    assert key.startswith(f"media/alice/{first.id}-")
    with pytest.raises(NotFound, match=f"media/{first.id} does not exist"):
        await read(library, "bob", first.id)
    other = await library.add("bob", chunks(picture()))
    assert other.id == first.id
    assert (await database.read(media.get, "bob", first.id)).key.startswith(f"media/bob/{first.id}-")
    assert await read(library, "alice", first.id) == await read(library, "bob", first.id)


async def test_an_upload_puts_an_image_back_whose_object_was_lost(
    library: MediaLibrary, database: Database, location: str
) -> None:
    stored = await library.add("alice", chunks(picture()))
    kept = await read(library, "alice", stored.id)
    key = (await database.read(media.get, "alice", stored.id)).key
    await Results(open_place(location)).delete(key)
    with pytest.raises(DataLoss, match=f"{key} is gone"):
        await read(library, "alice", stored.id)
    assert await library.add("alice", chunks(picture())) == stored
    assert await read(library, "alice", stored.id) == kept


async def test_a_tenants_images_are_bounded_by_its_quota_and_the_same_one_again_is_none_more(
    library: MediaLibrary, database: Database
) -> None:
    first = await library.add("alice", chunks(picture()))
    size = await database.read(media.kept_bytes, "alice")
    assert size == len(await read(library, "alice", first.id))
    await database.write(tenants.apply, "alice", Limits(max_media_bytes=size + 10))
    with pytest.raises(ResourceExhausted, match=f"has {size} bytes of uploaded images and may have {size + 10}; ") as e:
        await library.add("alice", chunks(picture(red=9)))
    assert (e.value.reason, e.value.metadata) == (Reason.QUOTA_EXCEEDED, {"quota": "media_bytes"})
    assert await library.add("alice", chunks(picture())) == first
    await library.add("bob", chunks(picture(red=9)))  # what others have counts for them alone
    quota = await database.read(quota_message, "alice")
    assert (quota.media_bytes, quota.max_media_bytes) == (size, size + 10)
    await database.write(media.forget_unused, -1_000_000)
    assert (await library.add("alice", chunks(picture(red=9)))).width == 64


async def test_of_two_images_at_once_for_which_there_is_room_for_one_the_other_leaves_nothing(
    library: MediaLibrary, database: Database
) -> None:
    await database.write(tenants.apply, "alice", Limits(max_media_bytes=200))
    adds = (library.add("alice", chunks(picture(red=red))) for red in (1, 9))
    outcomes = await asyncio.gather(*adds, return_exceptions=True)
    assert sorted(isinstance(outcome, ResourceExhausted) for outcome in outcomes) == [False, True]
    assert 100 < await database.read(media.kept_bytes, "alice") <= 200
    states = await database.read(lambda tx: list(tx.execute(select(object_table.c.state)).scalars()))
    assert sorted(states) in (["garbage", "live"], ["live"])


async def test_large_images_are_read_a_few_at_a_time_and_small_ones_pass_them(
    database: Database, tmp_path: Path
) -> None:
    library = MediaLibrary(database, Results(open_place(str(tmp_path))))
    read, go = asyncio.Semaphore(0), asyncio.Event()
    seen = 0

    async def slow() -> AsyncIterator[bytes]:
        nonlocal seen
        yield bytes(SMALL_BYTES + 1)
        seen += 1  # it was asked for more
        read.release()
        await go.wait()

    async with asyncio.timeout(60):
        uploads = [asyncio.create_task(library.add("alice", slow())) for _ in range(LARGE_AT_ONCE + 3)]
        for _ in range(LARGE_AT_ONCE):
            await read.acquire()
        assert (await library.add("alice", chunks(picture()))).width == 64  # beside them
        assert seen == LARGE_AT_ONCE
        go.set()
        outcomes = await asyncio.gather(*uploads, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [InvalidRequest] * len(uploads)  # zeros are no image
    assert seen == len(uploads)


async def test_an_upload_that_pauses_is_given_up(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wan22_gateway.arriving.PIECE_SECONDS", 0.05)

    async def pausing() -> AsyncIterator[bytes]:
        yield picture()[:20]
        await asyncio.Event().wait()

    with pytest.raises(DeadlineExceeded, match=r"or paused for 0\.05 s"):
        await MediaLibrary(database, Results(open_place(str(tmp_path)))).add("alice", pausing())
