"""The result store and the gateway killed while a real worker's video is stored: one video, with the same bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import obstore
import pytest
from obstore.store import S3Store

from wan22.client import Client, ParameterOptions
from wan22.v1.generation_pb2 import Generation
from wan22_testing.installation import Installation
from wan22_testing.s3_server import BUCKET, S3Server
from wan22_testing.tiny_models import shared_folder

T2V = "t2v-a14b-tiny"
WORK: ParameterOptions = {"num_inference_steps": 4, "num_frames": 5, "seed": 7}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    own = S3Server(tmp_path / "s3")
    for name, value in own.environment.items():
        monkeypatch.setenv(name, value)  # which the gateway's process inherits
    own.start()
    yield own
    own.kill()


def videos() -> list[str]:
    store = S3Store(BUCKET, client_options={"allow_http": True})  # the rest is in the environment
    keys = [str(meta["path"]) for page in obstore.list(store, "here/videos") for meta in page]
    return sorted(key for key in keys if key.endswith(".mp4"))


async def until(condition: Callable[[], object]) -> None:
    while True:
        if condition():
            return
        await asyncio.sleep(0.1)


async def make(client: Client, *, reuse: bool = False) -> Generation:
    return await client.create(variant=T2V, prompt="a red circle moves right", reuse=reuse, **WORK)


@pytest.mark.long
async def test_store_and_gateway_killed_while_a_video_is_stored(server: S3Server, tmp_path: Path) -> None:
    await server.until_ready()
    async with (
        asyncio.timeout(240),
        Installation(tmp_path, results=f"s3://{BUCKET}/here", lease_seconds=3, worker_lease_seconds=3) as installation,
        installation.client() as client,
    ):
        await installation.push(T2V, shared_folder(T2V))
        await installation.serve(T2V, "w1")
        await installation.start_workers("w1")
        undisturbed = await client.wait((await make(client)).name)
        assert undisturbed.state == Generation.SUCCEEDED
        assert (await make(client, reuse=True)).reused_from == undisturbed.name
        server.kill()
        name = (await make(client)).name
        log = installation.gateway.log
        await until(lambda: "its video cannot be stored yet" in log.read_text())
        installation.gateway.kill()
        installation.gateway.start()  # while the result store is still away
        await installation.gateway.until()
        await until(lambda: "Videos wait on their workers until it is back." in log.read_text())
        assert (await client.get(name)).state == Generation.RUNNING
        server.start()
        await server.until_ready()
        done = await client.wait(name)
        assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 1)
        assert done.video.digest == undisturbed.video.digest
        url = (await client.download_url(name)).url
        async with httpx.AsyncClient() as browser:
            assert len((await browser.get(url)).content) == done.video.size_bytes
        uuids = [each.removeprefix("generations/") for each in (undisturbed.name, name)]
        assert [key.split("/")[2] for key in videos()] == sorted(uuids)
        await client.delete(name)
        await until(lambda: [key.split("/")[2] for key in videos()] == uuids[:1])
        assert server.secret_key not in log.read_text()
