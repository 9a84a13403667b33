from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import sys
from pathlib import Path

import pytest
from tests.registry import model_folder

from wan22 import cache as cache_module
from wan22.cache import Cache, CachedVersion
from wan22.errors import DataLoss, NotFound, Reason, ResourceExhausted, Unavailable
from wan22.model_client import ModelClient
from wan22.v1.model_pb2 import Version

from .model_service import Watched, blob_path

T2V = "t2v-a14b-tiny"
WEIGHTS = bytes(range(256)) * 12_000
"""3,072,000 bytes: three chunks."""
FILE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
async def version(client: ModelClient, tmp_path: Path) -> Version:
    folder = model_folder.write(tmp_path / "model", WEIGHTS)
    return await client.push_folder(folder, model="m", variant=T2V, tags=["latest"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def weights_of(version: Version) -> str:
    """Digest of the version's one file of weights."""
    return next(file.digest for file in version.files if file.path == FILE)


def check(cached: CachedVersion, folder: Path) -> None:
    for path in cached.files:
        assert cached.path(path).read_bytes() == (folder / path).read_bytes()


async def begun_part(root: Path, digest: str) -> Path:
    """The part of a blob once it has bytes."""
    part = blob_path(root, digest + ".part")
    async with asyncio.timeout(60):
        while not part.exists() or not part.stat().st_size:  # noqa: ASYNC110  # a file has no event
            await asyncio.sleep(0.01)
    return part


def can_lock(root: Path, digest: str) -> bool:
    """Whether somebody else could take the lock exclusively, as an eviction has to."""
    lock = os.open(root / "locks" / digest.removeprefix("sha256:"), os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(lock)


async def test_a_pull_brings_every_file_once_and_says_how_far_it_is(
    registry: Watched, client: ModelClient, version: Version, root: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    first = await Cache(root).pull(version, client, lambda done, total: seen.append((done, total)))
    check(first, tmp_path / "model")
    assert set(first.files) == {"model_index.json", "vae/config.json", FILE}
    assert registry.bytes_read == version.size_bytes
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert (seen[-1], {total for _, total in seen}) == ((version.size_bytes,) * 2, {version.size_bytes})
    assert any(0 < version.size_bytes - done < 2_100_000 for done, _ in seen)  # within a file too
    second = await Cache(root).pull(version, client)
    check(second, tmp_path / "model")
    assert registry.bytes_read == version.size_bytes
    for cached in (first, second):
        cached.close()


async def test_blobs_in_use_cannot_be_locked_until_the_last_user_closes(
    client: ModelClient, version: Version, root: Path
) -> None:
    first, second = [await Cache(root).pull(version, client) for _ in range(2)]
    first.close()
    assert not can_lock(root, weights_of(version))
    second.close()
    second.close()  # again: nothing happens
    assert can_lock(root, weights_of(version))


async def test_files_of_equal_content_share_a_blob(
    registry: Watched, client: ModelClient, root: Path, tmp_path: Path
) -> None:
    folder = model_folder.write(tmp_path / "twins", WEIGHTS)
    (folder / "copy.safetensors").write_bytes((folder / FILE).read_bytes())
    version = await client.push_folder(folder, model="twins", variant=T2V, tags=[])
    with_copy = await Cache(root).pull(version, client)
    check(with_copy, folder)
    assert with_copy.path("copy.safetensors") == with_copy.path(FILE)
    assert [digest for digest, _ in registry.reads].count(weights_of(version)) == 1
    with_copy.close()


@pytest.mark.parametrize("damage", ["changed", "cut", "longer"])
async def test_a_damaged_cached_blob_is_pulled_again(
    registry: Watched, client: ModelClient, version: Version, root: Path, tmp_path: Path, damage: str
) -> None:
    (await Cache(root).pull(version, client)).close()
    path = blob_path(root, weights_of(version))
    data = path.read_bytes()
    path.write_bytes({"changed": b"\1" + data[1:], "cut": data[:-1], "longer": data + b"\0"}[damage])
    registry.reads.clear()
    cached = await Cache(root).pull(version, client)
    check(cached, tmp_path / "model")
    assert registry.reads == [(weights_of(version), 0)]
    cached.close()


async def test_of_what_is_verified_later_only_the_size_is_looked_at(
    registry: Watched, client: ModelClient, version: Version, root: Path, tmp_path: Path
) -> None:
    (await Cache(root).pull(version, client)).close()
    path = blob_path(root, weights_of(version))
    data = path.read_bytes()
    registry.reads.clear()
    for content in (b"\1" + data[1:], data[:-1]):
        path.write_bytes(content)
        (await Cache(root).pull(version, client, verified_later=lambda file: file.path == FILE)).close()
        assert path.read_bytes() == (content if len(content) == len(data) else data)
    assert registry.reads == [(weights_of(version), 0)]


@pytest.mark.parametrize("damage", ["changed", "cut", "longer"])
async def test_a_damaged_blob_of_the_registry_is_data_loss_naming_file_and_digests(
    registry: Watched, client: ModelClient, version: Version, root: Path, damage: str
) -> None:
    path = registry.blobs.path(weights_of(version))
    data = path.read_bytes()
    path.write_bytes({"changed": data[:-1] + b"\1", "cut": data[:-1], "longer": data + b"\0"}[damage])
    with pytest.raises(DataLoss, match=FILE) as caught:
        await Cache(root).pull(version, client)
    actual = "sha256:" + hashlib.sha256((data if damage == "longer" else path.read_bytes())[: len(data)]).hexdigest()
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert weights_of(version) in caught.value.message
    assert client.target in caught.value.message
    if damage != "longer":
        assert actual in caught.value.message
        expected = {"file": FILE, "expected": weights_of(version), "actual": actual}
        assert caught.value.metadata == expected
    assert not list(root.rglob("*.part"))
    assert not blob_path(root, weights_of(version)).exists()
    assert all(can_lock(root, file.digest) for file in version.files if blob_path(root, file.digest).exists())
    path.write_bytes(data)
    (await Cache(root).pull(version, client)).close()


async def test_an_interrupted_pull_goes_on_where_it_stopped(
    registry: Watched, client: ModelClient, version: Version, root: Path, tmp_path: Path
) -> None:
    registry.held = weights_of(version)
    pulling = asyncio.create_task(Cache(root).pull(version, client))
    await registry.stopped.wait()
    part = await begun_part(root, weights_of(version))
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling
    assert part.stat().st_size == 1 << 20
    assert can_lock(root, weights_of(version))
    registry.go_on.set()
    cached = await Cache(root).pull(version, client)
    check(cached, tmp_path / "model")
    assert registry.reads == [
        *[(file.digest, 0) for file in version.files],
        (weights_of(version), 1 << 20),
    ]
    cached.close()


@pytest.mark.parametrize("left", [b"\1" * 1000, b"\1" * 5_000_000], ids=["other bytes", "too many bytes"])
async def test_a_damaged_part_is_pulled_from_its_start(
    registry: Watched, client: ModelClient, version: Version, root: Path, tmp_path: Path, left: bytes
) -> None:
    cache = Cache(root)
    blob_path(root, weights_of(version) + ".part").write_bytes(left)
    cached = await cache.pull(version, client)
    check(cached, tmp_path / "model")
    assert registry.reads[-1] == (weights_of(version), 0)
    cached.close()


async def test_a_blob_that_the_registry_lacks_is_said_so_and_nothing_stays_locked(
    registry: Watched, client: ModelClient, version: Version, root: Path
) -> None:
    registry.blobs.path(weights_of(version)).unlink()
    with pytest.raises(NotFound, match=weights_of(version)) as caught:
        await Cache(root).pull(version, client)
    assert caught.value.reason is Reason.BLOB_MISSING
    assert can_lock(root, version.files[0].digest)


async def test_a_lock_that_another_process_keeps_without_pulling_is_not_waited_for_for_ever(
    client: ModelClient, version: Version, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "LOCK_PATIENCE_SECONDS", 0.3)
    cache = Cache(root)
    other = os.open(root / "locks" / weights_of(version).removeprefix("sha256:"), os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(Unavailable, match=FILE):
        await cache.pull(version, client)
    os.close(other)
    (await cache.pull(version, client)).close()


async def test_who_waits_to_pull_a_blob_goes_on_once_another_process_has_pulled_it_and_uses_it(
    client: ModelClient, version: Version, root: Path, tmp_path: Path
) -> None:
    digest = version.files[0].digest
    name = digest.removeprefix("sha256:")
    other = await Cache(tmp_path / "other").pull(version, client)
    cache = Cache(root)
    lock = os.open(root / "locks" / name, os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(lock, fcntl.LOCK_SH)  # as it is between the other's pull and its use
    waiting = asyncio.ensure_future(cache.pull(version, client))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.3)
    part = blob_path(root, digest + ".part")
    part.write_bytes(other.path(version.files[0].path).read_bytes())
    part.rename(blob_path(root, digest))
    async with asyncio.timeout(60):
        pulled = await waiting
    assert cache.counts.hits == 1
    pulled.close()
    other.close()
    os.close(lock)


async def test_a_damaged_blob_that_another_process_uses_is_not_replaced_under_it(
    client: ModelClient, version: Version, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "LOCK_PATIENCE_SECONDS", 0.3)
    user = await Cache(root).pull(version, client)
    path = user.path(FILE)
    path.write_bytes(b"\1" + path.read_bytes()[1:])
    with pytest.raises(DataLoss, match=f"{FILE} is not {weights_of(version)}"):
        await Cache(root).pull(version, client)
    user.close()
    again = await Cache(root).pull(version, client)
    assert hashlib.sha256(again.path(FILE).read_bytes()).hexdigest() == weights_of(version).removeprefix("sha256:")
    again.close()


async def test_a_cancelled_wait_for_a_lock_ends_at_once(client: ModelClient, version: Version, root: Path) -> None:
    cache = Cache(root)
    other = os.open(root / "locks" / version.files[0].digest.removeprefix("sha256:"), os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(other, fcntl.LOCK_EX)
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await cache.pull(version, client)
    finally:
        os.close(other)


async def test_a_full_disk_is_said_and_the_pull_goes_on_when_there_is_room(
    client: ModelClient, small_disk: Path, tmp_path: Path
) -> None:
    folder = model_folder.write(tmp_path / "big", WEIGHTS)
    version = await client.push_folder(folder, model="big", variant=T2V, tags=[])
    filler = small_disk / "filler"
    filler.write_bytes(bytes(2 << 20))
    with pytest.raises(ResourceExhausted, match="free space"):
        await Cache(small_disk).pull(version, client)
    filler.unlink()
    cached = await Cache(small_disk).pull(version, client)
    check(cached, folder)
    cached.close()


PULL = """
import asyncio, logging, sys
from pathlib import Path
from wan22.cache import Cache
from wan22.model_client import ModelClient

async def main():
    async with ModelClient(sys.argv[1]) as client:
        cached = await Cache(Path(sys.argv[2])).pull(await client.resolve("m"), client)
        print(cached.path(sys.argv[3]), flush=True)
        sys.stdin.read()  # uses it until the test ends it

logging.basicConfig(level=logging.INFO)
asyncio.run(main())
"""


async def start_pull(client: ModelClient, root: Path) -> asyncio.subprocess.Process:
    command = [sys.executable, "-c", PULL, client.target, str(root), FILE]
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)


async def line_with(stream: asyncio.StreamReader | None, words: str) -> str:
    """The next line that has the words."""
    assert stream is not None
    async with asyncio.timeout(60):
        while words not in (line := (await stream.readline()).decode()):
            assert line, f"the process ended without saying {words!r}"
    return line


async def end(process: asyncio.subprocess.Process) -> None:
    _, errors = await process.communicate(b"")
    assert process.returncode == 0, errors.decode()


async def test_two_processes_that_pull_one_version_make_one_download(
    registry: Watched, client: ModelClient, version: Version, root: Path
) -> None:
    registry.held = weights_of(version)
    first, second = [await start_pull(client, root) for _ in range(2)]
    waiting = [
        asyncio.create_task(line_with(process.stderr, "Waiting for another process")) for process in (first, second)
    ]
    _, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    registry.go_on.set()
    for task in others:
        task.cancel()
    for process in (first, second):
        path = Path((await line_with(process.stdout, "blobs")).strip())
        assert path == blob_path(root, weights_of(version))
        assert path.stat().st_size > len(WEIGHTS)
    assert registry.bytes_read == version.size_bytes
    assert not can_lock(root, weights_of(version))
    for process in (first, second):
        await end(process)
    assert can_lock(root, weights_of(version))


async def test_a_pull_killed_in_the_middle_is_gone_on_with_by_the_next_process(
    registry: Watched, client: ModelClient, version: Version, root: Path
) -> None:
    registry.held = weights_of(version)
    first = await start_pull(client, root)
    await registry.stopped.wait()
    second = await start_pull(client, root)
    await line_with(second.stderr, "Waiting for another process")
    await begun_part(root, weights_of(version))
    first.kill()  # the lock ends with it
    registry.held = ""
    registry.go_on.set()
    await first.communicate()
    await line_with(second.stdout, "blobs")
    await end(second)
    assert registry.reads[-1] == (weights_of(version), 1 << 20)
    content = blob_path(root, weights_of(version)).read_bytes()
    assert "sha256:" + hashlib.sha256(content).hexdigest() == weights_of(version)
