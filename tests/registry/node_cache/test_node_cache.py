"""The node cache against a real registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.common.model_service import Watched, blob_path
from tests.common.model_service import serve as serve_registry
from tests.registry import model_folder
from tests.registry.scraping import scrape

from wan22.cache import Cache
from wan22.channels import open_channel
from wan22.errors import FailedPrecondition, InvalidRequest
from wan22.model_client import ModelClient
from wan22.status import from_rpc_error
from wan22.v1 import cache_pb2, cache_pb2_grpc
from wan22.v1.cache_pb2 import CachedVersion
from wan22.v1.model_pb2 import Version
from wan22_registry.node_cache.service import serve
from wan22_registry.node_cache.settings import NodeCacheSettings
from wan22_registry.node_cache.wanted import Wanted
from wan22_testing.service_process import ServiceProcess, free_port

T2V = "t2v-a14b-tiny"
BYTES = 3_000_000
FILE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def registry(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "registry")


@pytest.fixture
async def client(registry: Watched) -> AsyncIterator[ModelClient]:
    async with serve_registry(registry) as address, ModelClient(address) as opened:
        yield opened


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


async def push(client: ModelClient, tmp_path: Path, name: str) -> Version:
    folder = model_folder.write(tmp_path / name, name.encode() * BYTES)
    return await client.push_folder(folder, model=name, variant=T2V, tags=["latest"])


class NodeCache:
    """A running one, with its stub."""

    def __init__(self, stub: Any) -> None:
        self.stub = stub

    async def get(self) -> dict[str, CachedVersion]:
        cache = await self.stub.GetCache(cache_pb2.GetCacheRequest(), timeout=10)
        return {version.reference: version for version in cache.versions}

    async def prefetch(self, reference: str) -> CachedVersion:
        answer: CachedVersion = await self.stub.Prefetch(cache_pb2.PrefetchRequest(reference=reference), timeout=10)
        return answer

    async def unprefetch(self, reference: str) -> None:
        await self.stub.Unprefetch(cache_pb2.UnprefetchRequest(reference=reference), timeout=10)

    async def until(self, reference: str, wanted: Callable[[CachedVersion], bool]) -> CachedVersion:
        async with asyncio.timeout(60):
            while not wanted(found := (await self.get())[reference]):  # noqa: ASYNC110  # a service has no event
                await asyncio.sleep(0.01)
        return found

    async def until_present(self, reference: str) -> CachedVersion:
        return await self.until(reference, lambda version: version.state == CachedVersion.PRESENT)


@asynccontextmanager
async def node_cache(root: Path, registry: str, **settings: Any) -> AsyncIterator[NodeCache]:
    whole: dict[str, Any] = {"port": 0, "health_port": 0, "retry_seconds": 0.05, **settings}
    settings_ = NodeCacheSettings(root=root, registry=registry, **whole)
    async with serve(settings_) as server, open_channel(f"127.0.0.1:{server.port}") as channel:
        yield NodeCache(cache_pb2_grpc.CacheServiceStub(channel))


async def error_of(call: Any) -> Exception:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_what_settings_and_callers_name_is_pulled_kept_and_found_by_workers(
    client: ModelClient, registry: Watched, root: Path, tmp_path: Path
) -> None:
    first, second = [await push(client, tmp_path, name) for name in ("a", "b")]
    async with node_cache(root, client.target, prefetch=["a"]) as node:
        present = await node.until_present("a")
        assert (present.version, present.done_bytes, present.size_bytes) == (first.name, *[first.size_bytes] * 2)
        assert present.verify_time.seconds > 0
        asked = await node.prefetch(second.name)
        assert asked.reference == second.name
        assert (await node.until_present(second.name)).version == second.name
        read = registry.bytes_read
        (await Cache(root).pull(second, client)).close()  # a worker's own pull
        assert registry.bytes_read == read
    async with node_cache(root, client.target) as node:  # what the settings no longer name is no longer kept
        await node.until_present(second.name)
        assert set(await node.get()) == {second.name}
        await node.unprefetch(second.name)
        await node.unprefetch(second.name)
        assert await node.get() == {}
    assert Wanted(root).read() == []


async def test_a_pull_says_how_far_it_is_and_ends_when_nobody_wants_it(
    client: ModelClient, registry: Watched, root: Path, tmp_path: Path
) -> None:
    version = await push(client, tmp_path, "a")
    registry.held = next(file.digest for file in version.files if file.path == FILE)
    async with node_cache(root, client.target) as node:
        await node.prefetch("a")
        pulling = await node.until("a", lambda version: version.done_bytes > 1_000_000)
        assert pulling.state == CachedVersion.PULLING
        assert pulling.done_bytes < pulling.size_bytes == version.size_bytes
        await node.unprefetch("a")
        await push(client, tmp_path, "b")
        await node.prefetch("b")  # has its turn
        await node.until_present("b")
    registry.go_on.set()


async def test_what_cannot_be_pulled_says_why_and_is_tried_again(
    client: ModelClient, root: Path, tmp_path: Path
) -> None:
    async with node_cache(root, client.target) as node:
        await node.prefetch("late:v1")
        failed = await node.until("late:v1", lambda version: version.state == CachedVersion.FAILED)
        assert "'late' is not in this registry" in failed.reason
        folder = model_folder.write(tmp_path / "late")
        await client.push_folder(folder, model="late", variant=T2V, tags=["v1"])
        assert (await node.until_present("late:v1")).reason == ""


async def test_what_is_kept_stays_under_the_quota_and_the_rest_goes(
    client: ModelClient, root: Path, tmp_path: Path
) -> None:
    versions = {name: await push(client, tmp_path, name) for name in "abc"}
    weights = {name: next(f.digest for f in v.files if f.path == FILE) for name, v in versions.items()}
    port = free_port()
    settings: dict[str, Any] = {"quota_bytes": 2 * BYTES + 10_000, "http_port": port}
    async with node_cache(root, client.target, prefetch=["a"], **settings) as node:
        await node.until_present("a")
        for name in "bc":  # workers that know of no quota
            (await Cache(root).pull(versions[name], client)).close()
        async with asyncio.timeout(60):
            while blob_path(root, weights["b"]).exists():  # noqa: ASYNC110  # a file has no event
                await asyncio.sleep(0.01)
        assert blob_path(root, weights["a"]).exists()
        await node.prefetch("c")
        await node.until_present("c")
        await node.prefetch("b")
        full = await node.until("b", lambda version: version.state == CachedVersion.FAILED)
        assert "its quota is 6010000" in full.reason
        await node.unprefetch("c")
        await node.until_present("b")
        assert not blob_path(root, weights["c"]).exists()
        metrics = await scrape(port, "wan22_cache_")
        assert metrics["versions", "present"] == 2
        assert metrics["versions", "failed"] == 0
        assert metrics["version_bytes", versions["a"].name] == versions["a"].size_bytes
        assert metrics["evicted_blobs_total",] >= 2
        assert metrics["evicted_bytes_total",] >= 2 * BYTES
        assert metrics["hits_total",] >= 2  # c was there, and so were the JSON files
        assert metrics["misses_total",] >= 4
        assert metrics["used_bytes",] <= metrics["quota_bytes",] == 6_010_000


async def test_damage_is_found_by_reading_again_and_repaired(
    client: ModelClient, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    version = await push(client, tmp_path, "a")
    digest = next(file.digest for file in version.files if file.path == FILE)
    port = free_port()
    settings: dict[str, Any] = {"verify_interval_hours": 1e-5, "verify_bytes_per_second": 1 << 40, "http_port": port}
    async with node_cache(root, client.target, prefetch=["a"], **settings) as node:
        first = await node.until_present("a")
        await node.until("a", lambda version: version.verify_time.ToNanoseconds() > first.verify_time.ToNanoseconds())
        path = blob_path(root, digest)
        whole = path.read_bytes()
        path.write_bytes(b"\1" + whole[1:])
        async with asyncio.timeout(60):
            while path.read_bytes() != whole if path.exists() else True:  # noqa: ASYNC110  # a file has no event
                await asyncio.sleep(0.01)
        await node.until_present("a")
        metrics = await scrape(port, "wan22_cache_")
    assert metrics["damage_found_total",] >= 1
    assert metrics["verified_bytes_total",] >= version.size_bytes
    assert f"The cached copy of {FILE} of {version.name} has digest" in caplog.text


async def test_what_cannot_be_is_refused(client: ModelClient, root: Path, tmp_path: Path) -> None:
    async with node_cache(root, client.target, prefetch=["a"]) as node:
        assert isinstance(await error_of(node.prefetch("No Model")), InvalidRequest)
        assert isinstance(await error_of(node.prefetch("models/x")), InvalidRequest)
        fixed = await error_of(node.unprefetch("a"))
        assert isinstance(fixed, FailedPrecondition)
        assert "WAN22_CACHE_PREFETCH" in str(fixed)
        with pytest.raises(FailedPrecondition, match="belongs to the running node cache"):
            async with node_cache(root, client.target):
                pass
    with pytest.raises(InvalidRequest, match="'a b'"):
        async with node_cache(root, client.target, prefetch=["a b"]):
            pass


async def test_the_process_keeps_its_list_over_kill_9(client: ModelClient, root: Path, tmp_path: Path) -> None:
    version = await push(client, tmp_path, "a")
    process = ServiceProcess("wan22_registry.node_cache", tmp_path / "log", root=root, registry=client.target)
    process.start({"WAN22_CACHE_RETRY_SECONDS": "0.1"})
    try:
        await process.until()
        async with open_channel(process.address) as channel:
            node = NodeCache(cache_pb2_grpc.CacheServiceStub(channel))
            await node.prefetch("a")
        process.kill()
        process.start()
        await process.until()
        async with open_channel(process.address) as channel:
            node = NodeCache(cache_pb2_grpc.CacheServiceStub(channel))
            assert (await node.until_present("a")).version == version.name
        assert process.stop() == 0
    finally:
        if process.running:
            process.kill()
