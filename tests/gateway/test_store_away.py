"""The result store killed under the gateway: what is to be stored waits on its worker, and is stored once."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from wan22.errors import Wan22Error
from wan22.v1 import generation_pb2
from wan22.v1.generation_pb2 import Generation, Progress
from wan22.v1.inference_pb2 import GenerateEvent
from wan22_testing.s3_server import BUCKET, S3Server

from .scripted_worker import T2V, ScriptedWorkerServicer, Start, accepted, gateway_with

LARGE = bytes(range(256)) * (40 << 12)
"""40 MiB: five parts of an upload."""
DIGEST = "sha256:" + hashlib.sha256(LARGE).hexdigest()


def large_video(start: Start) -> Sequence[GenerateEvent | Wan22Error]:
    pieces = [(at, LARGE[at : at + (1 << 20)]) for at in range(start.video_offset, len(LARGE), 1 << 20)]
    chunks = [generation_pb2.VideoChunk(offset=at, data=data, crc32=zlib.crc32(data)) for at, data in pieces]
    video = generation_pb2.Video(size_bytes=len(LARGE), digest=DIGEST)
    done = GenerateEvent(finished=GenerateEvent.Finished(video=video, compute_seconds=1.0))
    return [accepted(start), *(GenerateEvent(video_chunk=chunk) for chunk in chunks), done]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    own = S3Server(tmp_path / "s3")
    for name, value in own.environment.items():
        monkeypatch.setenv(name, value)
    own.start()
    yield own
    own.kill()


def objects() -> list[str]:
    store = S3Store(BUCKET, client_options={"allow_http": True})  # the rest is in the environment
    return sorted(str(meta["path"]) for page in obstore.list(store, "here") for meta in page)


def stored_bytes(server: S3Server) -> int:
    return sum(path.stat().st_size for path in (server.folder / "data").glob("*.dat"))


async def until(condition: Callable[[], object]) -> None:
    while True:
        if condition():
            return
        await asyncio.sleep(0.02)


async def test_a_video_is_stored_once_though_s3_is_killed_while_it_is_sent(
    server: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await server.until_ready()
    worker = ScriptedWorkerServicer(*[large_video] * 9)
    async with (
        asyncio.timeout(120),
        gateway_with(tmp_path, worker, results=f"s3://{BUCKET}/here") as client,
    ):
        before = stored_bytes(server)
        name = (await client.create(variant=T2V, prompt="p")).name
        await until(lambda: stored_bytes(server) - before > 9 << 20)  # the first part has arrived
        server.kill()
        await until(lambda: "its video cannot be stored yet" in caplog.text)
        waiting = await client.get(name)
        assert (waiting.state, waiting.progress.stage) == (Generation.RUNNING, Progress.STORING)
        assert worker.released == []
        server.start()
        await server.until_ready()
        done = await client.wait(name)
        assert (done.state, done.attempt_count, done.video.digest) == (Generation.SUCCEEDED, 1, DIGEST)
        assert {start.video_offset for start in worker.starts[1:]} == {len(LARGE)}  # it was not sent again
        await client.download(name, tmp_path / "out.mp4")  # compares the digest
        uuid = name.removeprefix("generations/")
        assert [key for key in objects() if key.endswith(".mp4")] == [f"here/videos/{uuid}/1-1.mp4"]
        await client.delete(name)
        await until(lambda: not objects())
