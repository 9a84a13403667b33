"""Calls that meet: cancelled ones, reads and pushes while a version goes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from wan22.channels import open_channel
from wan22.errors import NotFound
from wan22.model_client import ModelClient
from wan22.v1 import model_pb2, model_pb2_grpc

from . import model_folder

T2V = "t2v-a14b-tiny"


async def test_a_blob_read_while_its_version_goes_is_read_whole_and_then_gone(
    client: ModelClient, root: Path, tmp_path: Path
) -> None:
    folder = model_folder.write(tmp_path / "m", b"y" * 20_000_000)
    version = await client.push_folder(folder, model="m", variant=T2V, tags=[])
    weights = version.files[2]
    path = root / "blobs" / "sha256" / weights.digest.removeprefix("sha256:")
    reading = client.read_blob(weights.digest)
    data = [await anext(reading)]
    await client.delete(version.name)
    assert path.exists()  # the stream's window is smaller than the blob, so that it is still being read
    data += [chunk async for chunk in reading]
    assert b"".join(data) == (folder / weights.path).read_bytes()
    async with asyncio.timeout(60):
        while path.exists():  # noqa: ASYNC110  # a file has no event
            await asyncio.sleep(0.01)
    with pytest.raises(NotFound):
        await anext(client.read_blob(weights.digest))


async def test_cancelled_publishings_lose_no_other_change(client: ModelClient, tmp_path: Path) -> None:
    version = await client.push_folder(model_folder.write(tmp_path / "m"), model="m", variant=T2V, tags=[])
    async with open_channel(client.target) as channel:
        stub = model_pb2_grpc.ModelServiceStub(channel)

        def publish(
            tag: str, number: int
        ) -> grpc.aio.UnaryUnaryCall[model_pb2.PublishVersionRequest, model_pb2.Version]:
            files = [
                model_pb2.File(path=f"{number}/{file.path}", digest=file.digest, size_bytes=file.size_bytes)
                for file in version.files
            ]
            request = model_pb2.PublishVersionRequest(model="m", variant=T2V, files=files, tags=[tag])
            return stub.PublishVersion(request)

        confirmed = set()
        for number in range(0, 60, 2):
            cancelled, kept = publish(f"cancelled{number}", number), publish(f"kept{number}", number + 1)
            await asyncio.sleep(number / 10_000)  # 0 to 6 ms: before, in and after its work
            cancelled.cancel()
            confirmed.add((await kept).name)
    (model,) = await client.list_models()
    assert {found.name for found in model.versions} >= confirmed | {version.name}
    assert len(confirmed) == 30


async def test_deleting_while_others_publish_the_same_blobs_leaves_whole_versions(
    client: ModelClient, tmp_path: Path
) -> None:
    folders = [model_folder.write(tmp_path / f"m{n}", b"the same") for n in range(2)]
    (folders[1] / "more.json").write_text("{}")

    async def come_and_go() -> None:
        for _ in range(15):
            passing = await client.push_folder(folders[0], model="m", variant=T2V, tags=["a"])
            await client.delete(passing.name)

    async def stay() -> None:
        for number in range(15):
            (folders[1] / "more.json").write_text(f"[{number}]")
            kept = await client.push_folder(folders[1], model="n", variant=T2V, tags=["b"])
            assert not (await client.verify(kept.name)).damaged

    await asyncio.gather(come_and_go(), stay())
    (model,) = await client.list_models()
    assert (model.name, len(model.versions)) == ("models/n", 15)
    for version in model.versions:
        assert not (await client.verify(version.name)).damaged
