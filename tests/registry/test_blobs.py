from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from wan22.digests import Sha256
from wan22.errors import DataLoss, OutOfRange, Reason, ResourceExhausted, Unavailable
from wan22_registry.blobs import UNPUBLISHED_SECONDS, BlobStore

CONTENT = b"content"
DIGEST = str(Sha256(CONTENT))


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


async def store(blobs: BlobStore, content: bytes = CONTENT) -> None:
    async with blobs.push(str(Sha256(content)), len(content), 0) as push:
        push.append(content)


async def test_a_blob_in_use_is_collected_when_its_last_user_has_gone(blobs: BlobStore) -> None:
    await store(blobs)
    with blobs.use(DIGEST):
        with blobs.use(DIGEST, DIGEST):
            assert blobs.collect(set(), {DIGEST}) == [DIGEST]
            assert blobs.path(DIGEST).exists()
            assert blobs.size(DIGEST) is None  # whoever wants to publish it has to push it again
        assert blobs.path(DIGEST).exists()
    assert not blobs.path(DIGEST).exists()


async def test_a_blob_pushed_again_while_it_waits_to_be_collected_stays(blobs: BlobStore) -> None:
    await store(blobs)
    with blobs.use(DIGEST):
        blobs.collect(set(), {DIGEST})
        await store(blobs)
    assert blobs.size(DIGEST) == len(CONTENT)


async def test_a_blob_of_no_version_stays_for_a_day(blobs: BlobStore) -> None:
    await store(blobs)
    age(blobs.path(DIGEST), UNPUBLISHED_SECONDS - 60)
    assert blobs.collect(set(), set()) == []
    age(blobs.path(DIGEST), UNPUBLISHED_SECONDS + 60)
    assert blobs.collect({DIGEST}, {DIGEST}) == []  # some version has it
    assert blobs.collect(set(), set()) == [DIGEST]


async def test_one_caller_at_a_time_pushes_a_blob(blobs: BlobStore) -> None:
    async with blobs.push(DIGEST, len(CONTENT), 0) as push:
        push.append(CONTENT)
        with pytest.raises(Unavailable) as caught:
            async with blobs.push(DIGEST, len(CONTENT), 0):
                pass
        assert (caught.value.reason, caught.value.retry_after) == (Reason.BLOB_BUSY, 0.5)
    assert blobs.size(DIGEST) == len(CONTENT)


async def test_a_refused_push_leaves_the_blob_to_others(blobs: BlobStore) -> None:
    with pytest.raises(OutOfRange):
        async with blobs.push(DIGEST, len(CONTENT), 3):
            pass
    await store(blobs)
    assert blobs.path(DIGEST).read_bytes() == CONTENT


async def test_a_cancelled_push_keeps_what_came(blobs: BlobStore) -> None:
    begun = asyncio.Event()

    async def half() -> None:
        async with blobs.push(DIGEST, len(CONTENT), 0) as push:
            push.append(CONTENT[:3])
            begun.set()
            await asyncio.Event().wait()

    pushing = asyncio.create_task(half())
    await begun.wait()
    pushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pushing
    assert blobs.partial_size(DIGEST) == 3
    async with blobs.push(DIGEST, len(CONTENT), 3) as push:
        push.append(CONTENT[3:])
    assert blobs.path(DIGEST).read_bytes() == CONTENT


async def test_going_on_with_other_bytes_is_found_at_the_end(blobs: BlobStore) -> None:
    with pytest.raises(DataLoss, match="3 of 7 bytes"):
        async with blobs.push(DIGEST, len(CONTENT), 0) as push:
            push.append(b"CON")
    with pytest.raises(DataLoss, match=str(Sha256(b"CONtent"))):
        async with blobs.push(DIGEST, len(CONTENT), 3) as push:
            push.append(b"tent")
    assert blobs.partial_size(DIGEST) == 0
    assert blobs.size(DIGEST) is None


async def test_an_empty_blob_is_a_blob(blobs: BlobStore) -> None:
    await store(blobs, b"")
    assert blobs.size(str(Sha256())) == 0


async def test_a_start_removes_what_no_push_can_go_on_with(blobs: BlobStore, tmp_path: Path) -> None:
    await store(blobs)
    names = {"half": str(Sha256(b"half")), "old": str(Sha256(b"old")), "stored": DIGEST}
    parts = {name: tmp_path / "parts" / digest.removeprefix("sha256:") for name, digest in names.items()}
    for part in parts.values():
        part.write_bytes(b"x")
    age(parts["old"], UNPUBLISHED_SECONDS + 60)
    temporaries = [tmp_path / ".index.json.new", tmp_path / "blobs" / "sha256" / f".{'a' * 64}.new"]
    for temporary in temporaries:
        temporary.write_bytes(b"{")
    assert set(blobs.remove_temporaries()) == set(temporaries)
    assert set(blobs.drop_parts()) == {parts["old"], parts["stored"]}
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {parts["half"], blobs.path(DIGEST)}
    assert blobs.partial_size(names["half"]) == 1


async def test_a_quota_counts_blobs_parts_and_pushes_under_way(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path, quota=100)
    await store(blobs, b"a" * 40)
    other = str(Sha256(b"b" * 30))
    with pytest.raises(DataLoss):
        async with blobs.push(other, 30, 0) as push:
            push.append(b"b" * 10)  # 10 of 30 stay as a part
    third = str(Sha256(b"c" * 50))
    async with blobs.push(third, 50, 0) as push:
        with pytest.raises(
            ResourceExhausted, match="may keep 100 bytes and has 100, so that 1 more find no room"
        ) as caught:
            await store(blobs, b"d")
        with pytest.raises(ResourceExhausted, match="has 90, so that 30 more"):  # its own part does not count
            async with blobs.push(other, 30, 10):
                pass
        await store(blobs, b"a" * 40)  # what is here needs no room
        push.append(b"c" * 50)
    assert caught.value.reason is Reason.REGISTRY_FULL
    assert blobs.partial_size(other) == 10
    blobs.collect(set(), {third})
    await store(blobs, b"b" * 30)
    assert blobs.size(other) == 30
