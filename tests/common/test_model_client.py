from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from tests.registry import model_folder

from wan22.channels import CHUNK_BYTES
from wan22.errors import FailedPrecondition, InvalidRequest, NotFound, OutOfRange, Reason, Unavailable
from wan22.model_client import ModelClient
from wan22.v1.model_pb2 import Version
from wan22_testing.service_process import free_port

from .model_service import Watched, serve

T2V = "t2v-a14b-tiny"
WEIGHTS = bytes(range(256)) * 20_000
"""5,120,000 bytes: five chunks."""
FILE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folder.write(tmp_path / "model", WEIGHTS)


async def push(client: ModelClient, folder: Path, *tags: str) -> Version:
    return await client.push_folder(folder, model="m", variant=T2V, tags=tags)


def weights_of(version: Version) -> str:
    return next(file.digest for file in version.files if file.path == FILE)


async def read(client: ModelClient, digest: str) -> bytes:
    return b"".join([data async for data in client.read_blob(digest)])


async def test_only_what_is_missing_is_pushed(registry: Watched, client: ModelClient, folder: Path) -> None:
    first = await push(client, folder, "v1")
    assert sorted(digest for digest, _ in registry.pushes) == sorted(file.digest for file in first.files)
    (folder / "vae" / "config.json").write_text('{"z_dim": 48}')
    registry.pushes.clear()
    second = await push(client, folder, "v2")
    changed = next(file.digest for file in second.files if file.path == "vae/config.json")
    assert registry.pushes == [(changed, 0)]
    assert first.name != second.name


@pytest.mark.parametrize("content", ["new", "known"])
async def test_progress_grows_to_the_whole(client: ModelClient, folder: Path, content: str) -> None:
    if content == "known":
        await push(client, folder)
    seen: list[tuple[int, int]] = []
    version = await client.push_folder(
        folder, model="m", variant=T2V, tags=[], progress=lambda done, total: seen.append((done, total))
    )
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (version.size_bytes, version.size_bytes)
    assert len(seen) == 3 if content == "known" else len(seen) > 3 + len(WEIGHTS) // CHUNK_BYTES


async def test_what_is_left_out_is_logged(client: ModelClient, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "wan22.model_client"):
        version = await push(client, folder)
    assert "Left out of m: README.md." in caplog.messages
    assert "README.md" not in [file.path for file in version.files]


async def test_a_broken_push_goes_on_where_the_registry_says(
    registry: Watched, client: ModelClient, folder: Path
) -> None:
    registry.broken_pushes = 1
    version = await push(client, folder)
    assert [offset for digest, offset in registry.pushes if digest == weights_of(version)] == [0, 2 * CHUNK_BYTES]
    assert await read(client, weights_of(version)) == (folder / FILE).read_bytes()


async def test_a_damaged_part_at_the_registry_is_pushed_from_its_start(
    registry: Watched, client: ModelClient, folder: Path, tmp_path: Path
) -> None:
    version = await push(client, folder)
    await client.delete(version.name)
    (tmp_path / "registry" / "parts" / weights_of(version).removeprefix("sha256:")).write_bytes(b"\1" * 1000)
    registry.pushes.clear()
    await push(client, folder)
    assert [offset for digest, offset in registry.pushes if digest == weights_of(version)] == [1000, 0]
    assert await read(client, weights_of(version)) == (folder / FILE).read_bytes()


async def test_a_blob_that_another_caller_pushes_is_waited_for(
    registry: Watched, client: ModelClient, folder: Path
) -> None:
    async with ModelClient(client.target) as other:
        first, second = await asyncio.gather(push(client, folder, "a"), push(other, folder, "b"))
    assert first.name == second.name
    assert list((await client.get_version(first.name)).tags) == ["a", "b"]
    assert await read(client, weights_of(first)) == (folder / FILE).read_bytes()


async def test_blobs_that_are_deleted_before_the_publishing_are_pushed_again(
    registry: Watched, client: ModelClient, folder: Path
) -> None:
    registry.lost_blobs = 2
    version = await push(client, folder)
    assert [digest for digest, _ in registry.pushes].count(weights_of(version)) == 3
    (folder / "vae" / "config.json").write_text("{}")
    registry.lost_blobs = 3
    with pytest.raises(FailedPrecondition, match="Lost by the test"):
        await push(client, folder)


async def test_a_file_that_changes_while_it_is_pushed_is_refused_by_name(
    registry: Watched, client: ModelClient, folder: Path
) -> None:
    def change(_done: int, _total: int) -> None:
        (folder / FILE).write_bytes(model_folder.tensor(WEIGHTS[::-1]))

    with pytest.raises(InvalidRequest, match=f"{FILE} has changed while it was pushed"):
        await client.push_folder(folder, model="m", variant=T2V, tags=[], progress=change)
    assert await client.list_models() == []


async def test_a_broken_read_goes_on_where_it_stopped(registry: Watched, client: ModelClient, folder: Path) -> None:
    version = await push(client, folder)
    registry.broken_reads = 2
    assert await read(client, weights_of(version)) == (folder / FILE).read_bytes()
    assert registry.reads == [(weights_of(version), offset) for offset in (0, CHUNK_BYTES, 2 * CHUNK_BYTES)]


async def test_a_registry_that_starts_late_is_waited_for(registry: Watched, folder: Path) -> None:
    port = free_port()
    async with ModelClient(f"127.0.0.1:{port}", first_patience=30) as client:
        pushing = asyncio.create_task(push(client, folder))
        async with serve(registry, port):
            assert (await pushing).variant == T2V


async def test_a_registry_that_is_not_there_is_named(folder: Path) -> None:
    target = f"127.0.0.1:{free_port()}"
    async with ModelClient(target, first_patience=0.3) as client:
        for call in (push(client, folder), client.list_models(), read(client, "sha256:" + "a" * 64)):
            with pytest.raises(Unavailable, match=target):
                await call


async def test_errors_are_those_of_wan22(client: ModelClient, folder: Path) -> None:
    version = await push(client, folder)
    with pytest.raises(NotFound, match="nothing"):
        await client.resolve("nothing")
    with pytest.raises(InvalidRequest, match=r"models/\{model\}/versions"):
        await client.get_version("m:latest")
    with pytest.raises(NotFound) as missing:
        await read(client, "sha256:" + "a" * 64)
    assert missing.value.reason is Reason.BLOB_MISSING
    with pytest.raises(OutOfRange, match="offset is 9"):
        async for _ in client.read_blob(version.files[0].digest, 9):
            pass
    assert (await client.pin(version.name)).pinned
    with pytest.raises(FailedPrecondition, match="unpin it first"):
        await client.delete(version.name)
    assert not (await client.unpin(version.name)).pinned
    assert (await client.verify(version.name)).bytes_verified == version.size_bytes
    await client.delete(version.name)
    assert await client.list_models() == []


async def test_a_deletion_whose_answer_is_lost_succeeds_and_one_of_nothing_does_not(
    registry: Watched, client: ModelClient, folder: Path
) -> None:
    version = await push(client, folder)
    registry.lost_deletions = 1
    await client.delete(version.name)
    assert registry.lost_deletions == 0
    assert await client.list_models() == []
    with pytest.raises(NotFound):
        await client.delete(version.name)
