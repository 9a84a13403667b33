"""A store of the release before, taken to this version and back by one, while clients make videos all the time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from wan22.client import Client, ParameterOptions
from wan22.v1.generation_pb2 import Generation
from wan22_gateway.store.migrate import newest
from wan22_testing.installation import SIMULATED_WORKER, Installation
from wan22_testing.postgres import PostgresServer
from wan22_testing.service_process import ServiceProcess, environment_of
from wan22_testing.tiny_models import shared_folder

T2V = "t2v-a14b-tiny"
WORK: ParameterOptions = {
    "num_inference_steps": 2,
    "num_frames": 5,
    "seed": 7,
    "fps": 16,
    "flow_shift": 12.0,
    "solver": "UNIPC",
    "guidance_scale_high": 4.0,
    "guidance_scale_low": 3.0,
}
"""All that the releases have other defaults of."""
LEASE = 3
CALLERS = 2
PATIENCE = 240.0
"""Seconds for which a caller tries a gateway that is being replaced."""
FILLED = 8
"""Generations that are there before anything is migrated, some still queued."""


async def job(url: str, code: Path | None) -> str:
    """Runs the migration Job of a release, and returns what it said."""
    command = [sys.executable, "-m", "wan22_gateway.migrate", "--store", url]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, env=environment_of(code))
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


@dataclass
class Load:
    """Clients that each make one video after the other, at every replica."""

    installation: Installation
    made: list[str] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)
    ended: asyncio.Condition = field(default_factory=asyncio.Condition)

    @asynccontextmanager
    async def going(self) -> AsyncIterator[None]:
        """Every call must succeed, whatever happens meanwhile."""
        async with asyncio.TaskGroup() as callers:
            tasks = [callers.create_task(self._call(number)) for number in range(CALLERS)]
            yield
            await self.more()
            for task in tasks:
                task.cancel()

    async def more(self) -> None:
        """Returns when as many further videos are there as were under way, twice."""
        wanted = len(self.made) + 2 * CALLERS
        async with self.ended:
            await self.ended.wait_for(lambda: len(self.made) >= wanted)

    async def _call(self, number: int) -> None:
        gateways = self.installation.gateways
        endpoint = gateways[number % len(gateways)].address
        async with Client(endpoint, first_patience=PATIENCE, patience=PATIENCE) as client:
            while True:
                name = (await client.create(variant=T2V, prompt="a red circle", **WORK)).name
                done = await client.wait(name)
                assert done.state == Generation.SUCCEEDED, done
                self.digests.add(done.video.digest)
                async with self.ended:
                    self.made.append(name)
                    self.ended.notify_all()


async def replace(gateway: ServiceProcess, code: Path | None, *, kill: bool) -> None:
    """Puts another release's gateway in the place of one."""
    if kill:
        gateway.kill()
    else:
        await asyncio.to_thread(gateway.stop, 60.0)
    gateway.code = code
    gateway.start()
    await gateway.until(seconds=120.0)


async def filled(installation: Installation) -> list[str]:
    """Generations of the old release: finished, and some that wait still."""
    async with installation.client() as client:
        names = [(await client.create(variant=T2V, prompt="a red circle", **WORK)).name for _ in range(FILLED)]
        for name in names[: FILLED // 2]:
            assert (await client.wait(name)).state == Generation.SUCCEEDED
    return names


async def until_one_video_each(folder: Path, names: list[str], pending: Callable[[], set[str]]) -> None:
    """A killed gateway may have stored one that nothing refers to: `pending` has the keys that are deleted later."""
    async with asyncio.timeout(180):
        while True:
            known = pending()
            videos = (folder / "videos" / name.removeprefix("generations/") for name in names)
            stored = ({str(video.relative_to(folder)) for video in each.glob("*.mp4")} for each in videos)
            if all(len(keys - known) == 1 for keys in stored):
                return
            await asyncio.sleep(0.2)


def nothing_is_pending() -> set[str]:
    """Of a gateway that is alone: what an earlier one began is garbage at the start of the next."""
    return set()


def pending_in(url: str) -> set[str]:
    """Of replicas: what a killed one began is deleted an hour later, since nobody knows that it writes no more."""
    with psycopg.connect(url) as connection:
        return {key for (key,) in connection.execute("SELECT key FROM objects WHERE state = 'pending'")}


async def check_nothing_is_lost(
    installation: Installation, load: Load, before: list[str], pending: Callable[[], set[str]]
) -> None:
    async with installation.client() as client:
        for name in before:
            assert (await client.wait(name)).state == Generation.SUCCEEDED
        states = {found.name: found.state async for found in client.list(page_size=100)}
        assert load.made[0] in states
        assert {*before, *load.made} <= states.keys()
        for name in states:  # those of calls that were cut off at the end, too
            assert (await client.wait(name)).state == Generation.SUCCEEDED
    await until_one_video_each(installation.folder / "videos", list(states), pending)
    assert len(load.digests) == 1  # each is the undisturbed one: the recipe was the same


async def test_postgres_is_migrated_under_old_replicas_and_served_by_old_code_again(
    postgres: PostgresServer, old: Path, tmp_path: Path
) -> None:
    url = postgres.url(postgres.create())
    await job(url, old)
    terms: dict[str, Any] = {"lease_seconds": LEASE, "worker_lease_seconds": LEASE}
    installation = Installation(tmp_path, replicas=2, store=url, **terms)
    for gateway in installation.gateways:
        gateway.code = old
    load = Load(installation)
    async with installation:
        await serve(installation, old)
        before = await filled(installation)
        async with load.going():
            assert f"The store has schema {newest()}" in await job(url, None)
            await load.more()  # the old replicas serve on
            for gateway in installation.gateways:
                await replace(gateway, None, kill=False)
                await load.more()  # both releases at once, then the new one alone
            for gateway in installation.gateways:
                await replace(gateway, old, kill=True)
                await load.more()
        await check_nothing_is_lost(installation, load, before, partial(pending_in, url))


async def test_a_folder_is_migrated_by_the_new_gateway_and_served_by_the_old_one_again(
    old: Path, tmp_path: Path
) -> None:
    installation = Installation(tmp_path, lease_seconds=LEASE, worker_lease_seconds=LEASE)
    installation.gateway.code = old
    load = Load(installation)
    async with installation:
        await serve(installation, old)
        before = await filled(installation)
        async with load.going():
            for code, kill in ((None, True), (old, False)):
                await replace(installation.gateway, code, kill=kill)
                await load.more()
        await check_nothing_is_lost(installation, load, before, nothing_is_pending)


async def serve(installation: Installation, code: Path) -> None:
    """Two workers of the release before, which stay as they are."""
    await installation.push(T2V, shared_folder(T2V))
    simulated: dict[str, Any] = {"module": SIMULATED_WORKER}
    await installation.serve(T2V, "s1", "s2", **simulated)
    for worker in installation.workers.values():
        worker.code = code
    await installation.start_workers("s1", "s2")
    await installation.until_known("s1", "s2")
