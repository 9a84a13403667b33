from __future__ import annotations

import asyncio
import hashlib
import random
from pathlib import Path

import pytest

from wan22.channels import open_channel
from wan22.errors import DataLoss, InvalidRequest, OutOfRange, Reason, ResourceExhausted
from wan22.model_client import ModelClient
from wan22.status import from_rpc_error
from wan22.v1 import model_pb2, model_pb2_grpc
from wan22_registry.registry import serve
from wan22_registry.settings import RegistrySettings
from wan22_testing.service_process import ServiceProcess

from . import model_folder

T2V = "t2v-a14b-tiny"
BLOB = bytes(range(256)) * 10_000
DIGEST = "sha256:" + hashlib.sha256(BLOB).hexdigest()
"""Of BLOB, 2,560,000 bytes."""


def parts(data: bytes, offset: int = 0, digest: str = DIGEST, size: int = len(BLOB)) -> list[model_pb2.PushBlobRequest]:
    head = model_pb2.PushBlobRequest(blob=model_pb2.Blob(digest=digest, size_bytes=size), offset=offset)
    chunks = [
        model_pb2.PushBlobRequest(offset=start, data=data[start : start + 1_000_000])
        for start in range(offset, len(data), 1_000_000)
    ]
    return [head, *chunks]


async def send(registry: str, requests: list[model_pb2.PushBlobRequest]) -> model_pb2.Blob:
    import grpc

    async with open_channel(registry) as channel:
        try:
            return await model_pb2_grpc.ModelServiceStub(channel).PushBlob(iter(requests))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None


async def offset_of(registry: str) -> int | None:
    """Where a push of BLOB may go on; None when it is stored."""
    async with open_channel(registry) as channel:
        blob = model_pb2.Blob(digest=DIGEST, size_bytes=len(BLOB))
        request = model_pb2.FindMissingBlobsRequest(blobs=[blob])
        answer = await model_pb2_grpc.ModelServiceStub(channel).FindMissingBlobs(request)
    return answer.missing[0].offset if answer.missing else None


async def test_a_push_that_ends_early_goes_on_where_it_stopped(registry: str) -> None:
    assert await offset_of(registry) == 0
    with pytest.raises(DataLoss, match="1000000 of 2560000"):
        await send(registry, parts(BLOB)[:2])
    assert await offset_of(registry) == 1_000_000
    assert await send(registry, parts(BLOB, 1_000_000)) == model_pb2.Blob(digest=DIGEST, size_bytes=len(BLOB))
    assert await offset_of(registry) is None
    assert await send(registry, parts(BLOB)) == model_pb2.Blob(digest=DIGEST, size_bytes=len(BLOB))  # again


async def test_other_bytes_than_the_digest_says_are_data_loss_and_forgotten(registry: str) -> None:
    other = b"\1" + BLOB[1:]
    with pytest.raises(DataLoss, match=DIGEST) as caught:
        await send(registry, parts(other))
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert caught.value.metadata["actual"] == "sha256:" + hashlib.sha256(other).hexdigest()
    assert await offset_of(registry) == 0


async def test_a_push_beyond_what_is_here_is_refused_saying_what_is(registry: str) -> None:
    with pytest.raises(OutOfRange, match="offset is 5, but 0 of 2560000 bytes"):
        await send(registry, parts(BLOB, 5))
    assert await offset_of(registry) == 0
    await send(registry, parts(BLOB))  # the refused push blocks nobody


@pytest.mark.parametrize(
    "requests",
    [
        [],
        parts(BLOB)[1:],
        [parts(BLOB)[0], parts(BLOB)[2]],
        parts(BLOB, size=100),
        parts(BLOB, digest="sha256:../../etc/passwd"),
        parts(BLOB, size=-1),
    ],
    ids=["empty", "headless", "gap", "too long", "no digest", "negative size"],
)
async def test_a_push_out_of_order_is_refused(registry: str, requests: list[model_pb2.PushBlobRequest]) -> None:
    with pytest.raises(InvalidRequest):
        await send(registry, requests)
    assert await offset_of(registry) is not None


async def test_kill_9_at_any_moment_of_a_push_shows_nothing_half_and_loses_nothing(
    tmp_path: Path, moments: random.Random
) -> None:
    process = ServiceProcess("wan22_registry", tmp_path / "log", root=tmp_path / "registry")
    process.start()
    await process.until()
    published: list[str] = []
    try:
        for turn in range(4):
            folder = model_folder.write(tmp_path / f"m{turn}", moments.randbytes(20_000_000))
            async with ModelClient(process.address, first_patience=120, patience=120) as client:
                pushing = asyncio.create_task(client.push_folder(folder, model="m", variant=T2V, tags=[f"v{turn}"]))
                await asyncio.sleep(moments.uniform(0.0, 0.4))  # the random moment
                process.kill()
                process.start()
                await process.until()
                before = [version for model in await client.list_models() for version in model.versions]
                assert {v.name for v in before} >= set(published)
                for version in before:
                    assert not (await client.verify(version.name)).damaged
                published.append((await pushing).name)  # the push itself goes on over the restart
        assert list((tmp_path / "registry" / "parts").iterdir()) == []
        assert not [p for p in (tmp_path / "registry").rglob(".*") if p.is_file()]
    finally:
        process.kill()


async def test_a_second_registry_on_the_same_layout_exits_naming_the_holder(registry: str, root: Path) -> None:
    import os

    second = ServiceProcess("wan22_registry", root.parent / "second.log", root=root)
    second.start()
    with pytest.raises(AssertionError, match=f"process id {os.getpid()}"):
        await second.until()


async def test_a_full_disk_is_said_and_leaves_the_registry_working(small_disk: Path, tmp_path: Path) -> None:
    process = ServiceProcess("wan22_registry", tmp_path / "log", root=small_disk)
    process.start()
    try:
        await process.until()
        async with ModelClient(process.address) as client:
            folder = model_folder.write(tmp_path / "s")
            small = await client.push_folder(folder, model="s", variant=T2V, tags=["latest"])
            with pytest.raises(ResourceExhausted, match="No space left"):
                await client.push_folder(
                    model_folder.write(tmp_path / "big", bytes(8 << 20)), model="b", variant=T2V, tags=["latest"]
                )
            assert (await client.resolve("s")).name == small.name
            assert not (await client.verify(small.name)).damaged
            await client.push_folder(model_folder.write(tmp_path / "t", b"t"), model="t", variant=T2V, tags=["latest"])
    finally:
        process.kill()


async def test_a_registry_beyond_its_quota_says_so_and_takes_again_what_fits(tmp_path: Path) -> None:
    settings = RegistrySettings(root=tmp_path / "registry", port=0, health_port=0, quota_bytes=2_000_000)
    async with serve(settings) as server, ModelClient(f"127.0.0.1:{server.port}") as client:
        first = await client.push_folder(
            model_folder.write(tmp_path / "a", b"a" * 1_500_000), model="m", variant=T2V, tags=["latest"]
        )
        second = model_folder.write(tmp_path / "b", b"b" * 1_500_000)
        with pytest.raises(ResourceExhausted, match="delete versions, or raise its quota") as caught:
            await client.push_folder(second, model="m", variant=T2V, tags=["latest"])
        assert caught.value.reason is Reason.REGISTRY_FULL
        assert (await client.resolve("m")).name == first.name
        await client.delete(first.name)
        await client.push_folder(second, model="m", variant=T2V, tags=["latest"])
