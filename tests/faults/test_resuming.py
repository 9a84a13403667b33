"""A lost worker's generation goes on from its newest checkpoint, to the same bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from wan22.client import Client
from wan22.v1.generation_pb2 import AttemptStart, Generation, Progress
from wan22_testing.installation import Installation
from wan22_testing.postgres import PostgresServer
from wan22_testing.tiny_models import shared_folder

from .conftest import STEPS, T2V, WORK


@pytest.fixture(params=["alone", pytest.param("three replicas", marks=pytest.mark.long)])
async def installation(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Installation]:
    flags: dict[str, Any] = {"lease_seconds": 3, "worker_lease_seconds": 3, "resume_wait_seconds": 2}
    if request.param != "alone":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        store = postgres.url(postgres.create(request.getfixturevalue("migrated")))
        flags |= {"replicas": 3, "store": store}
    async with Installation(tmp_path, **flags) as running:
        await running.push(T2V, shared_folder(T2V))
        yield running


async def undisturbed_digest(client: Client) -> str:
    made = await client.create(variant=T2V, prompt="a red circle", **WORK)
    return (await client.wait(made.name)).video.digest


def stored_checkpoints(installation: Installation, name: str) -> dict[int, Path]:
    """What the result store has of a generation, by step."""
    folder = installation.folder / "videos" / "checkpoints" / name.removeprefix("generations/")
    return {int(path.stem.rpartition("-")[2]): path for path in folder.glob("*.safetensors")}


async def until_checkpoints(installation: Installation, client: Client, name: str, count: int = 1) -> None:
    async for event in client.watch(name):
        if event.progress.step > 0 and len(stored_checkpoints(installation, name)) >= count:
            return
    raise AssertionError("the generation ended first")


async def second_attempt(client: Client, name: str) -> tuple[AttemptStart, list[int]]:
    """How the second attempt started, and the steps that it reported."""
    events = [event async for event in client.watch(name) if event.sequence]
    starts = [index for index, event in enumerate(events) if event.HasField("attempt_start")]
    assert len(starts) == 2
    steps = [event.progress.step for event in events[starts[1] :] if event.progress.stage == Progress.DENOISING]
    return events[starts[1]].attempt_start, steps


async def test_a_killed_workers_generation_goes_on_elsewhere_to_the_same_bytes(
    installation: Installation, client: Client
) -> None:
    await installation.serve(T2V, "w1", "w2", checkpoint_seconds=0)
    await installation.start_workers("w1")
    expected = await undisturbed_digest(client)
    await installation.start_workers("w2")
    made = await client.create(variant=T2V, prompt="a red circle", **WORK)
    await until_checkpoints(installation, client, made.name)
    attempt = await anext(aiter(e.attempt_start async for e in client.watch(made.name) if e.HasField("attempt_start")))
    installation.workers[attempt.worker.removeprefix("workers/")].kill()
    done = await client.wait(made.name)
    assert (done.state, done.attempt_count, done.video.digest) == (Generation.SUCCEEDED, 2, expected)
    start, steps = await second_attempt(client, made.name)
    assert 0 < start.resumed_step < STEPS
    assert start.restart_reason == ""
    assert min(steps) >= start.resumed_step
    async with asyncio.timeout(60):
        while stored_checkpoints(installation, made.name):  # noqa: ASYNC110  # another process deletes them
            await asyncio.sleep(0.1)


async def test_on_other_numerics_it_starts_anew_and_says_so(installation: Installation, client: Client) -> None:
    await installation.serve(T2V, "w1", checkpoint_seconds=0)
    await installation.start_workers("w1")
    expected = await undisturbed_digest(client)
    made = await client.create(variant=T2V, prompt="a red circle", **WORK)
    await until_checkpoints(installation, client, made.name)
    installation.workers["w1"].kill()
    await installation.serve(T2V, "w1", "w2", threads=2)
    await installation.start_workers("w2")
    done = await client.wait(made.name)
    assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 2)
    start, steps = await second_attempt(client, made.name)
    assert start.resumed_step == 0
    assert "was made by other numerics" in start.restart_reason
    assert steps[0] == 0
    assert expected  # the video need not be the same, and on this processor may be


async def test_a_damaged_checkpoint_gives_way_to_the_one_before(installation: Installation, client: Client) -> None:
    await installation.serve(T2V, "w1", checkpoint_seconds=0)
    await installation.start_workers("w1")
    expected = await undisturbed_digest(client)
    made = await client.create(variant=T2V, prompt="a red circle", **WORK)
    await until_checkpoints(installation, client, made.name, 2)
    installation.workers["w1"].kill()
    installation.gateway.kill()
    stored = stored_checkpoints(installation, made.name)
    newest = stored.pop(max(stored))
    content = bytearray(newest.read_bytes())
    content[-5] ^= 1
    newest.write_bytes(content)
    installation.gateway.start()
    await installation.gateway.until()
    await installation.start_workers("w1")
    done = await client.wait(made.name)
    assert (done.state, done.video.digest) == (Generation.SUCCEEDED, expected)
    start, _ = await second_attempt(client, made.name)
    assert start.resumed_step in stored
