from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from tests.registry import model_folder

from wan22.cache import Cache
from wan22.errors import ResourceExhausted
from wan22.model_client import ModelClient
from wan22.v1.model_pb2 import Version

from .model_service import Watched

MEGABYTE = 1_000_000
FILE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
async def versions(client: ModelClient, tmp_path: Path) -> list[Version]:
    """Four versions of a megabyte each, whose JSON files are shared."""
    folders = [model_folder.write(tmp_path / f"m{n}", bytes([n]) * MEGABYTE) for n in range(4)]
    return [await client.push_folder(f, model=f.name, variant="t2v-a14b-tiny", tags=[]) for f in folders]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def here(root: Path, versions: list[Version]) -> list[int]:
    """Which versions' weights are in the cache."""
    digests = [next(file.digest for file in version.files if file.path == FILE) for version in versions]
    names = {path.name for path in (root / "blobs" / "sha256").iterdir()}
    return [number for number, digest in enumerate(digests) if digest.removeprefix("sha256:") in names]


async def use(cache: Cache, version: Version, client: ModelClient) -> None:
    (await cache.pull(version, client)).close()


async def test_what_was_used_longest_ago_goes_first(client: ModelClient, versions: list[Version], root: Path) -> None:
    cache = Cache(root, quota=2_500_000)
    for number in (0, 1, 0, 2):  # 0 is used again before 2 needs room
        await use(cache, versions[number], client)
    assert here(root, versions) == [0, 2]
    await use(cache, versions[3], client)
    assert here(root, versions) == [2, 3]


async def test_within_the_quota_nothing_goes(client: ModelClient, versions: list[Version], root: Path) -> None:
    cache = Cache(root, quota=4_500_000)
    for version in versions:
        await use(cache, version, client)
    assert here(root, versions) == [0, 1, 2, 3]


async def test_a_version_in_use_stays_whoever_uses_it(
    registry: Watched, client: ModelClient, versions: list[Version], root: Path
) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path\n"
        "from wan22.cache import Cache; from wan22.model_client import ModelClient\n"
        "async def main():\n"
        "    async with ModelClient(sys.argv[1]) as client:\n"
        "        await Cache(Path(sys.argv[2])).pull(await client.get_version(sys.argv[3]), client)\n"
        "    print('held', flush=True); await asyncio.sleep(600)\n"
        "asyncio.run(main())"
    )
    arguments = [client.target, str(root), versions[0].name]
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout is not None
    try:
        assert await asyncio.wait_for(holder.stdout.readline(), 60) == b"held\n"
        cache = Cache(root, quota=2_500_000)
        mine = await cache.pull(versions[1], client)
        with pytest.raises(ResourceExhausted, match=r"quota is 2500000.*are in use") as caught:
            await cache.pull(versions[2], client)
        assert str(root) in caught.value.message
        assert here(root, versions) == [0, 1]
        mine.close()
        await use(cache, versions[2], client)
        assert here(root, versions) == [0, 2]
    finally:
        holder.kill()  # its lock ends with it
        await holder.wait()
    await use(cache, versions[3], client)
    await use(cache, versions[1], client)
    assert 0 not in here(root, versions)


async def test_a_version_that_is_here_is_never_taken_for_its_own_sake(
    client: ModelClient, versions: list[Version], root: Path
) -> None:
    await use(Cache(root), versions[0], client)
    await use(Cache(root, quota=10), versions[0], client)  # nothing is needed that is not here
    assert here(root, versions) == [0]


async def test_what_an_interrupted_pull_has_left_counts_and_may_go(
    registry: Watched, client: ModelClient, versions: list[Version], root: Path
) -> None:
    digest = next(file.digest for file in versions[0].files if file.path == FILE)
    part = root / "blobs" / "sha256" / (digest.removeprefix("sha256:") + ".part")
    registry.held = digest
    pulling = asyncio.create_task(Cache(root).pull(versions[0], client))
    await registry.stopped.wait()
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling
    part.write_bytes(bytes(2 * MEGABYTE))
    await use(Cache(root, quota=1_500_000), versions[1], client)
    assert not part.exists()
    assert here(root, versions) == [1]
