"""The release before and this version together, both ways: each side as processes of its own packages."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import av
import grpc
import pytest
import pytest_asyncio

from wan22.channels import open_channel
from wan22.client import Client
from wan22.errors import InvalidRequest
from wan22.model_client import ModelClient
from wan22.status import from_rpc_error
from wan22.v1 import generation_pb2, generation_pb2_grpc, pool_pb2, pool_pb2_grpc
from wan22.v1.generation_pb2 import Generation
from wan22_testing.installation import SIMULATED_WORKER, Installation, pool_name
from wan22_testing.service_process import environment_of
from wan22_testing.tiny_models import shared_folder
from wan22_testing.wan22_command import Wan22Command

pytestmark = pytest.mark.asyncio(loop_scope="module")
T2V, SIMULATED = "t2v-a14b-tiny", "pools/test.simulated"
PROMPT = "a red circle moves right"
SDK = """
import asyncio, sys
from pathlib import Path
import wan22
from wan22.client import Client

async def main():
    assert wan22.__file__.startswith(sys.argv[1]), wan22.__file__
    async with Client(sys.argv[2]) as client:
        done = await client.generate(Path("sdk.mp4"), variant="t2v-a14b-tiny", prompt="a red circle", seed=7)
        print(done.name)

asyncio.run(main())
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def old_worker(old: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    """A gateway and a registry of this version; the old command has imported the model, an old worker serves it."""
    folder = tmp_path_factory.mktemp("old_worker")
    async with Installation(folder) as running:
        command = Wan22Command(folder, old)
        imported = await command(
            "models", "import", str(shared_folder(T2V)), "--variant", T2V, "--registry", running.registry.address
        )
        assert imported.exit_code == 0, imported.err
        running.use(T2V, imported.out.strip())
        await running.serve(T2V, "w1")
        running.workers["w1"].code = old
        await running.start_workers("w1")
        await running.until_known("w1")
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def old_gateway(old: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    """An old gateway and an old registry; this version has pushed the model, and its workers serve it."""
    running = Installation(tmp_path_factory.mktemp("old_gateway"))
    running.registry.code = running.gateway.code = old
    async with running:
        await running.push(T2V, shared_folder(T2V))
        await running.serve(T2V, "w1")
        simulated: dict[str, Any] = {"module": SIMULATED_WORKER, "gpu_utilization": 0.5}
        await running.serve(T2V, "s1", pool=SIMULATED, **simulated)
        await running.start_workers("w1", "s1")
        await running.until_known("w1", "s1")
        yield running


def frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return len(list(container.decode(video=0)))


async def pool_at(installation: Installation, name: str) -> pool_pb2.Pool:
    async with open_channel(installation.gateway.address) as channel:
        stub: Any = pool_pb2_grpc.PoolServiceStub(channel)
        pool: pool_pb2.Pool = await stub.GetPool(pool_pb2.GetPoolRequest(name=name), timeout=30.0)
        return pool


async def test_an_old_worker_makes_videos_for_a_new_gateway(old_worker: Installation, tmp_path: Path) -> None:
    async with old_worker.client() as client:
        done = await client.generate(tmp_path / "out.mp4", variant=T2V, prompt=PROMPT, seed=7)
    assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 1)
    assert frames_of(tmp_path / "out.mp4") == 17
    (worker,) = (await pool_at(old_worker, pool_name(T2V))).workers
    assert (worker.alive, worker.HasField("gpu")) == (True, False)  # it does not say what its release did not know


async def test_the_old_command_and_sdk_work_with_a_new_gateway(
    old_worker: Installation, old: Path, tmp_path: Path
) -> None:
    command = Wan22Command(tmp_path, old, WAN22_ENDPOINT=old_worker.gateway.address)
    made = await command("generate", PROMPT, "-o", "out.mp4", "--variant", T2V, "--json")
    assert made.exit_code == 0, made.err
    assert frames_of(tmp_path / "out.mp4") == 17
    listed = await command("generations", "list", "--json")
    assert made.json()["name"] in [line["name"] for line in listed.json_lines()]
    arguments = ["-c", SDK, str(old), old_worker.gateway.address]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=tmp_path, env=environment_of(old), stdout=asyncio.subprocess.PIPE
    )
    name, _ = await process.communicate()
    assert (process.returncode, frames_of(tmp_path / "sdk.mp4")) == (0, 17)
    async with old_worker.client() as client:
        assert (await client.get(name.decode().strip())).state == Generation.SUCCEEDED


async def test_a_new_worker_makes_videos_for_an_old_gateway_that_ignores_what_it_does_not_know(
    old_gateway: Installation, tmp_path: Path
) -> None:
    async with old_gateway.client() as client:
        done = await client.generate(tmp_path / "out.mp4", variant=T2V, prompt=PROMPT, seed=7)
        assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 1)
        assert frames_of(tmp_path / "out.mp4") == 17
        made = await client.create(variant=T2V, prompt=PROMPT, pool=SIMULATED)
        assert (await client.wait(made.name)).state == Generation.SUCCEEDED
    (worker,) = (await pool_at(old_gateway, SIMULATED)).workers
    assert (worker.alive, worker.HasField("gpu")) == (True, False)  # the worker says it, the gateway cannot


async def test_the_new_command_works_with_an_old_gateway_and_registry(
    old_gateway: Installation, tmp_path: Path
) -> None:
    command = Wan22Command(tmp_path, WAN22_ENDPOINT=old_gateway.gateway.address)
    made = await command("generate", PROMPT, "-o", "out.mp4", "--variant", T2V, "--json")
    assert made.exit_code == 0, made.err
    assert frames_of(tmp_path / "out.mp4") == 17
    listed = await command("models", "list", "--registry", old_gateway.registry.address, "--json")
    assert listed.exit_code == 0, listed.err
    async with ModelClient(old_gateway.registry.address) as models:
        version = await models.resolve("wan2.2-t2v-a14b-tiny:latest")
    assert version.name == made.json()["model_version"]


async def test_a_request_with_a_field_that_the_old_gateway_does_not_know_is_refused_by_number(
    old_gateway: Installation,
) -> None:
    request = generation_pb2.CreateGenerationRequest(
        generation=Generation(variant=T2V, parameters=generation_pb2.Parameters(prompt=PROMPT))
    )
    request.MergeFromString(b"\xf8\x3f\x01")  # field 1023, a number
    async with open_channel(old_gateway.gateway.address) as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="1023") as caught:
            await stub.CreateGeneration(request, timeout=30.0)
    assert isinstance(from_rpc_error(caught.value), InvalidRequest)
    async with Client(old_gateway.gateway.address) as client:
        assert (await client.variants())[0].name == T2V  # it goes on
