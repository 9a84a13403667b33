"""kill -9 of the registry, or of a process that pulls and evicts, at random moments of everything they do."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
import re
import sys
from pathlib import Path

import pytest
from tests.registry import model_folder

from wan22.errors import Unavailable
from wan22.model_client import ModelClient
from wan22_testing.service_process import ServiceProcess

T2V = "t2v-a14b-tiny"
BYTES = 3_000_000
"""Of weights in a version: three messages."""
QUOTA = 4 * BYTES
"""Of the cache: every other pull evicts."""


class Life:
    """A registry process, what it has confirmed, and a process with a cache folder."""

    def __init__(self, folder: Path, moments: random.Random) -> None:
        self.folder = folder
        self.registry = ServiceProcess("wan22_registry", folder / "log", root=folder / "registry")
        self.published: set[str] = set()
        self.deleting: set[str] = set()
        """Asked to be deleted; confirmed or not."""
        self.deleted: set[str] = set()
        self.held = 0
        """Versions that the cache's user has had whole."""
        self._moments = moments
        self._numbers = itertools.count()
        self._user: asyncio.subprocess.Process | None = None
        self._counting: asyncio.Task[None] | None = None

    async def start_registry(self) -> None:
        self.registry.start()
        await self.registry.until()

    async def start_user(self) -> None:
        self._user = await asyncio.create_subprocess_exec(
            *[sys.executable, str(Path(__file__).with_name("cache_user.py")), self.registry.address],
            *[str(self.folder / "cache"), str(QUOTA), str(self._moments.randrange(1 << 32))],
            stdout=asyncio.subprocess.PIPE,
        )
        self._counting = asyncio.create_task(self._count(self._user))

    async def _count(self, user: asyncio.subprocess.Process) -> None:
        assert user.stdout
        async for _ in user.stdout:
            self.held += 1

    async def kill_user(self) -> None:
        """Kills the cache's user while it works. Raises AssertionError when it had ended by itself."""
        assert self._user
        assert self._counting
        assert self._user.returncode is None
        self._user.kill()
        await self._user.wait()
        await self._counting

    async def push(self) -> None:
        """Pushes new versions, one after the other, until the registry is gone."""
        async with ModelClient(self.registry.address, first_patience=0, patience=0) as client:
            while True:
                number = next(self._numbers)
                folder = model_folder.write(self.folder / f"m{number}", self._moments.randbytes(BYTES))
                pushed = await client.push_folder(folder, model="m", variant=T2V, tags=[f"v{number}"])
                self.published.add(pushed.name)

    async def delete(self) -> None:
        """Deletes all but a few versions, until the registry is gone."""
        async with ModelClient(self.registry.address, first_patience=0, patience=0) as client:
            while True:
                there = sorted(self.published - self.deleting)
                if len(there) > 3:
                    name = self._moments.choice(there)
                    self.deleting.add(name)
                    await client.delete(name)
                    self.deleted.add(name)
                else:
                    await client.list_models()

    async def kill_registry(self) -> None:
        """Kills the registry while it is pushed to, read from and deleted from, and starts it again."""
        working = [asyncio.create_task(work) for work in (self.push(), self.push(), self.delete())]
        await asyncio.sleep(self._moments.uniform(0.0, 0.5))  # the random moment
        self.registry.kill()
        for ended in await asyncio.gather(*working, return_exceptions=True):
            assert isinstance(ended, Unavailable), ended
        await self.start_registry()

    async def check_registry(self, kept: str) -> None:
        """Right after a start, with nobody who writes."""
        root = self.folder / "registry"
        names = {path.name for path in root.iterdir()}
        assert names == {"oci-layout", "index.json", "blobs", "parts", "lock"}
        blobs = {path.name for path in (root / "blobs" / "sha256").iterdir()}
        assert all(re.fullmatch("[0-9a-f]{64}", name) for name in blobs)
        assert not {path.name for path in (root / "parts").iterdir()} & blobs
        async with ModelClient(self.registry.address) as client:
            listed = {version.name for model in await client.list_models() for version in model.versions}
            assert listed >= {kept} | (self.published - self.deleting)
            assert not listed & self.deleted
            for name in listed:
                assert not (await client.verify(name)).damaged
            for name in listed - {kept} - self.published:  # published, but the answer was lost
                self.published.add(name)

    def check_cache(self) -> None:
        """With its user dead: what has a blob's name is the blob, and beside that there are parts alone."""
        blobs = list((self.folder / "cache" / "blobs" / "sha256").iterdir())
        for path in blobs:
            if path.suffix != ".part":
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
            assert re.fullmatch(r"[0-9a-f]{64}(\.part)?", path.name)
        assert sum(path.stat().st_size for path in blobs) <= QUOTA


async def live(folder: Path, moments: random.Random, kills: int) -> None:
    life = Life(folder, moments)
    await life.start_registry()
    try:
        async with ModelClient(life.registry.address) as client:
            weights = model_folder.write(folder / "kept", moments.randbytes(BYTES))
            kept = (await client.push_folder(weights, model="kept", variant=T2V, tags=["latest"])).name
            await client.pin(kept)
        await life.start_user()
        for _ in range(kills):
            if moments.random() < 0.5:
                await life.kill_registry()
                await life.check_registry(kept)
            else:
                seen = life.held
                async with asyncio.timeout(60):
                    while life.held == seen:  # noqa: ASYNC110  # it has started, and the registry answers it
                        await asyncio.sleep(moments.uniform(0.0, 0.1))
                await life.kill_user()
                life.check_cache()
                await life.start_user()
        await life.kill_user()
        async with ModelClient(life.registry.address) as client:
            for model in await client.list_models():
                for version in model.versions if model.name == "models/m" else ():
                    await client.delete(version.name)
            assert [model.name for model in await client.list_models()] == ["models/kept"]
    finally:
        life.registry.kill()
    assert life.published
    assert life.held > kills / 4


@pytest.mark.timeout(600)
async def test_twenty_kills_show_nothing_half_lose_nothing_and_leave_nothing(
    tmp_path: Path, moments: random.Random
) -> None:
    await live(tmp_path, moments, 20)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_two_hundred_kills_show_nothing_half_lose_nothing_and_leave_nothing(
    tmp_path: Path, moments: random.Random
) -> None:
    await live(tmp_path, moments, 200)
