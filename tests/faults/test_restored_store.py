"""A backup of the store is put back beside workers that went on living: they know of later owners and attempts."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from wan22.client import Client
from wan22.v1.generation_pb2 import Generation
from wan22_testing.installation import SIMULATED_WORKER, Installation
from wan22_testing.tiny_models import shared_folder

T2V = "t2v-a14b-tiny"
TAKEOVERS = 2


def back_up(store: Path, copy: Path) -> None:
    """As docs/operations.md says."""
    with closing(sqlite3.connect(store / "store.sqlite")) as connection:
        connection.execute("VACUUM INTO ?", [str(copy)])


def restore(store: Path, copy: Path) -> None:
    for old in store.glob("store.sqlite*"):
        old.unlink()
    shutil.copy(copy, store / "store.sqlite")


async def step_after(client: Client, name: str, step: int = 0) -> int:
    """Waits until a generation is beyond a step, and says where."""
    async for event in client.watch(name):
        if event.progress.step > step:
            return event.progress.step
    raise AssertionError(f"{name} has ended")


async def test_a_restored_store_goes_beyond_what_its_workers_have_seen(tmp_path: Path) -> None:
    async with Installation(tmp_path, lease_seconds=3) as installation, installation.client() as client:
        gateway, store = installation.gateway, tmp_path / "gateway"
        await installation.push(T2V, shared_folder(T2V))
        await installation.serve(T2V, "w1", module=SIMULATED_WORKER, step_seconds=2)
        await installation.start_workers("w1")
        on_its_way = await client.create(variant=T2V, prompt="a red circle", num_inference_steps=100)
        step = await step_after(client, on_its_way.name)
        waiting = await client.create(variant=T2V, prompt="a blue square", num_inference_steps=20)
        await asyncio.to_thread(back_up, store, tmp_path / "backup")

        await installation.serve(T2V, "w1", "w2", module=SIMULATED_WORKER, step_seconds=0.1)
        await installation.start_workers("w2")
        await step_after(client, waiting.name)
        for _ in range(TAKEOVERS):
            gateway.kill()
            gateway.start()
            await gateway.until()
        before = await client.wait(waiting.name)
        gateway.kill()
        restore(store, tmp_path / "backup")
        gateway.start()
        await gateway.until()

        await installation.serve(T2V, "w1", "w2")
        again = await client.wait(waiting.name)
        assert (again.state, again.video.digest) == (Generation.SUCCEEDED, before.video.digest)
        await step_after(client, on_its_way.name, step)  # its worker is listened to again, and has not begun anew
        await client.cancel(on_its_way.name)
        ended = await client.wait(on_its_way.name)
        assert (ended.state, ended.attempt_count) == (Generation.CANCELLED, 1)
        assert "the store is older than its workers" in gateway.log.read_text()
