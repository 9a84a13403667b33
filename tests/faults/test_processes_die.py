"""Processes killed and paused in the middle of work: nothing is lost, nothing runs to two ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from wan22.channels import open_channel
from wan22.client import Client
from wan22.errors import ResourceExhausted
from wan22.v1 import generation_pb2, inference_pb2, inference_pb2_grpc
from wan22.v1.generation_pb2 import Generation
from wan22_testing.installation import Installation
from wan22_testing.tiny_models import shared_folder

from .conftest import LEASE, T2V, WORK


async def queue_work(client: Client) -> Generation:
    return await client.create(variant=T2V, prompt="a red circle moves right", **WORK)


async def queue_much_work(client: Client) -> None:
    for _ in range(100):
        await queue_work(client)


async def denoising_worker(client: Client, name: str) -> str:
    """Waits until a generation denoises, and says where."""
    worker = ""
    async for event in client.watch(name):
        if event.HasField("attempt_start"):
            worker = event.attempt_start.worker.removeprefix("workers/")
        if event.progress.step > 0:
            break
    return worker


async def undisturbed_digest(client: Client) -> str:
    done = await client.wait((await queue_work(client)).name)
    return done.video.digest


def stored_videos(installation: Installation, name: str) -> list[Path]:
    return list((installation.folder / "videos" / "videos" / name.removeprefix("generations/")).glob("*.mp4"))


async def history(client: Client, name: str) -> list[generation_pb2.GenerationEvent]:
    return [event async for event in client.watch(name) if event.sequence]


async def test_a_generation_survives_kill_9_of_its_worker_with_the_same_bytes(
    installation: Installation, client: Client
) -> None:
    await installation.start_workers("w1", "w2")
    expected = await undisturbed_digest(client)
    name = (await queue_work(client)).name
    first = await denoising_worker(client, name)
    installation.workers[first].kill()
    done = await client.wait(name)
    assert done.state == Generation.SUCCEEDED
    assert done.attempt_count == 2
    assert done.video.digest == expected
    assert len(stored_videos(installation, name)) == 1
    starts = [event.attempt_start.worker for event in await history(client, name) if event.HasField("attempt_start")]
    assert starts[0] == f"workers/{first}"
    assert starts[1] != starts[0]


async def test_everything_accepted_goes_on_after_kill_9_of_the_gateway(
    installation: Installation, client: Client
) -> None:
    await installation.start_workers("w1")
    names = [(await queue_work(client)).name for _ in range(4)]
    await denoising_worker(client, names[0])
    installation.gateway.kill()
    installation.gateway.start()
    await installation.gateway.until()
    digests = set()
    for name in names:
        done = await client.wait(name)
        assert done.state == Generation.SUCCEEDED
        assert done.attempt_count == 1  # the running one was re-attached, not run again
        assert len(stored_videos(installation, name)) == 1
        events = await history(client, name)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        finals = [e for e in events if e.state_change.state == Generation.SUCCEEDED]
        assert len(finals) == 1
        digests.add(done.video.digest)
    assert len(digests) == 1


async def test_a_gateway_paused_beyond_its_leases_reattaches(installation: Installation, client: Client) -> None:
    await installation.start_workers("w1", "w2")
    name = (await queue_work(client)).name
    await denoising_worker(client, name)
    installation.gateway.pause()
    await asyncio.sleep(2 * LEASE)  # the point of the test: the leases lapse meanwhile
    installation.gateway.resume()
    done = await client.wait(name)
    assert done.state == Generation.SUCCEEDED
    assert done.attempt_count == 1
    assert len(stored_videos(installation, name)) == 1
    assert "Took over attempt 1" in installation.gateway.log.read_text()


async def test_a_worker_paused_beyond_its_lease_loses_the_generation_and_stops_its_own_attempt(
    installation: Installation, client: Client
) -> None:
    await installation.start_workers("w1", "w2")
    name = (await queue_work(client)).name
    first = await denoising_worker(client, name)
    installation.workers[first].pause()
    done = await client.wait(name)
    assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 2)
    installation.workers[first].resume()
    async with asyncio.timeout(60), open_channel(installation.workers[first].address) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        while True:
            worker = await stub.GetWorker(inference_pb2.GetWorkerRequest())
            if worker.state == inference_pb2.Worker.IDLE and not worker.attempts:
                break
            await asyncio.sleep(0.1)  # a worker has no events to wait for
    assert len(stored_videos(installation, name)) == 1


async def test_a_second_gateway_on_the_same_store_exits_naming_the_holder(installation: Installation) -> None:
    command = [sys.executable, "-m", "wan22_gateway", "--port", "0", "--health-port", "0", "--http-port", "0"]
    command += ["--store", str(installation.folder / "gateway"), "--results", str(installation.folder / "videos")]
    second = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=60)
    assert second.returncode == 1
    assert f"process id {installation.gateway.pid}" in second.stderr


async def test_a_full_queue_refuses_with_a_time_to_try_again(installation: Installation, client: Client) -> None:
    for _ in range(6):
        await queue_work(client)
    with pytest.raises(ResourceExhausted, match="6 generations wait") as caught:
        await queue_work(client)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 1.0


async def test_a_corrupt_blob_keeps_the_worker_from_being_ready_and_names_the_file(
    installation: Installation, client: Client
) -> None:
    blobs = installation.folder / "registry" / "blobs" / "sha256"
    largest = max(blobs.iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[-1] ^= 1
    largest.chmod(0o644)
    largest.write_bytes(data)
    made = await queue_work(client)
    installation.workers["w1"].start()
    async for event in client.watch(made.name):
        if "broken" in event.queue.waiting_for:
            assert ".safetensors" in event.queue.waiting_for
            assert f"sha256:{largest.name}" in event.queue.waiting_for
            break
    with pytest.raises(AssertionError, match="not ready"):
        await installation.workers["w1"].until(seconds=1.0)
    assert (await client.get(made.name)).state == Generation.QUEUED


async def test_a_full_disk_refuses_new_work_and_the_gateway_goes_on_when_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    async with Installation(tmp_path, store=small_disk) as installation, installation.client() as client:
        await installation.push(T2V, shared_folder(T2V))
        await installation.serve(T2V, "w1")
        filler = small_disk / "filler"
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(b"x" * (8 << 20))
        with pytest.raises(ResourceExhausted, match="Free space"):
            await queue_much_work(client)
        filler.unlink()
        await installation.start_workers("w1")  # noticed by a part of the gateway that the full disk had stopped
        assert (await client.wait((await queue_work(client)).name)).state == Generation.SUCCEEDED
