"""What a simulated worker has beside the protocol, which the worker's own suite tests of both kinds."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import av
import pytest

from wan22.channels import open_channel
from wan22.parameter_messages import to_message
from wan22.parameters import Parameters, RequestedParameters, resolve
from wan22.recipe import Recipe
from wan22.v1 import inference_pb2, inference_pb2_grpc
from wan22.variants import VARIANTS
from wan22_gateway.cost import work
from wan22_inference.worker_server import Service, serve_worker
from wan22_testing.service_process import ServiceProcess
from wan22_testing.simulated_worker.renderer import SimulatedRenderer
from wan22_testing.simulated_worker.rendering import write_undisturbed
from wan22_testing.simulated_worker.settings import SimulatedWorkerSettings

VERSION = f"models/wan2.2-t2v-a14b/versions/sha256:{'5' * 64}"


def chosen(**given: Any) -> Parameters:
    requested = RequestedParameters(prompt="a cat", seed=1, **given)
    return resolve(VARIANTS["t2v-a14b"], requested, image_size=None, draw_seed=lambda: 0)


@asynccontextmanager
async def serving(folder: Path, **changed: Any) -> AsyncIterator[tuple[Service, Any]]:
    given: dict[str, Any] = {"variant": "t2v-a14b", "model": VERSION, "time_scale": 0.001, **changed}
    settings = SimulatedWorkerSettings(
        port=0, health_port=0, pool="pools/a.b", name="workers/one", scratch=folder, **given
    )
    async with (
        serve_worker(settings, SimulatedRenderer(settings)) as service,
        open_channel(f"127.0.0.1:{service.server.port}") as channel,
    ):
        yield service, inference_pb2_grpc.InferenceServiceStub(channel)


async def until_ready(service: Service) -> None:
    while not service.worker.ready:
        await service.worker.changed.wait()


async def make(stub: Any, parameters: Parameters) -> tuple[inference_pb2.GenerateEvent.Finished, bytes]:
    attempt = inference_pb2.Attempt(
        generation="generations/00000000-0000-0000-0000-000000000001", number=1, owner_epoch=1
    )
    start = inference_pb2.GenerateRequest.Start(
        attempt=attempt, parameters=to_message(parameters), model_version=VERSION
    )
    events = [event async for event in stub.Generate(iter([inference_pb2.GenerateRequest(start=start)]))]
    return events[-1].finished, b"".join(event.video_chunk.data for event in events)


async def test_it_takes_the_time_that_the_cost_model_predicts_times_the_scale(tmp_path: Path) -> None:
    parameters = chosen()
    predicted = sum(work(VARIANTS["t2v-a14b"], parameters).parts) * 0.001
    async with serving(tmp_path) as (service, stub):
        await until_ready(service)
        finished, _ = await make(stub, parameters)
    assert predicted <= finished.compute_seconds < predicted + 1.0


async def test_a_step_takes_the_least_time_that_the_settings_say(tmp_path: Path) -> None:
    async with serving(tmp_path, time_scale=0, step_seconds=0.1) as (service, stub):
        await until_ready(service)
        finished, _ = await make(stub, chosen(num_inference_steps=5))
    assert 0.5 <= finished.compute_seconds < 1.5


async def test_its_video_is_a_real_one_that_depends_on_the_recipe_alone(tmp_path: Path) -> None:
    videos = []
    for seed in (1, 1, 2):
        async with serving(tmp_path / "scratch", time_scale=0) as (service, stub):
            await until_ready(service)
            finished, video = await make(stub, chosen(num_inference_steps=3 + seed))
        videos.append(video)
        write_undisturbed(Recipe.from_json(finished.recipe), tmp_path / "again.mp4")
        assert (tmp_path / "again.mp4").read_bytes() == video
    assert videos[0] == videos[1] != videos[2]
    with av.open(str(tmp_path / "again.mp4")) as file:
        assert len(list(file.decode(video=0))) == 8


async def test_it_loads_for_a_while_and_tells_how_much_is_left(tmp_path: Path) -> None:
    async with serving(tmp_path, load_seconds=0.5, model_bytes=1000) as (service, stub):
        worker = await stub.GetWorker(inference_pb2.GetWorkerRequest())
        assert (worker.state, worker.bytes_total) == (inference_pb2.Worker.LOADING, 1000)
        assert worker.bytes_loaded < 1000
        await until_ready(service)
        worker = await stub.GetWorker(inference_pb2.GetWorkerRequest())
        assert (worker.state, worker.bytes_loaded) == (inference_pb2.Worker.IDLE, 1000)


@pytest.mark.parametrize("utilization", [None, 0.0, 0.08])
async def test_its_gpu_is_as_busy_as_the_settings_say(tmp_path: Path, utilization: float | None) -> None:
    async with serving(tmp_path, gpu_utilization=utilization) as (_, stub):
        worker = await stub.GetWorker(inference_pb2.GetWorkerRequest())
    assert (worker.gpu.utilization if worker.HasField("gpu") else None) == utilization
    assert worker.gpu.age.ToMilliseconds() < 1000


async def test_an_unknown_variant_breaks_it(tmp_path: Path) -> None:
    async with serving(tmp_path, variant="t2v-a15b") as (service, stub):
        await service.worker.changed.wait()
        worker = await stub.GetWorker(inference_pb2.GetWorkerRequest())
        assert worker.state == inference_pb2.Worker.BROKEN
        assert "'t2v-a15b'" in worker.error.message


def test_it_needs_no_torch() -> None:
    code = "import sys, wan22_testing.simulated_worker.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


async def test_it_takes_a_real_workers_flags_and_is_ready_soon(tmp_path: Path) -> None:
    process = ServiceProcess(
        "wan22_testing.simulated_worker",
        tmp_path / "log",
        name="workers/one",
        pool="pools/a.b",
        model=VERSION,
        variant="t2v-a14b",
        scratch=tmp_path / "scratch",
        cache=tmp_path / "cache",
        device="cuda:3",
        vram_limit="12GiB",
    )
    started = time.monotonic()
    process.start()
    try:
        await process.until()
        assert time.monotonic() - started < 10.0  # a second on a machine that has nothing else to do
    finally:
        process.kill()
