from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from wan22.errors import Code, DataLoss, FailedPrecondition, NotFound, Reason, Unavailable
from wan22.model_client import ModelClient
from wan22.model_packing import Packer
from wan22.parameters import Parameters
from wan22.status import from_status
from wan22.v1 import inference_pb2 as pb
from wan22_inference.engine.arrivals import Arrivals
from wan22_inference.model_renderer import ModelRenderer
from wan22_inference.scratch import Scratch
from wan22_inference.weights import Weights
from wan22_inference.worker_server import Service
from wan22_registry.registry import serve as serve_registry
from wan22_registry.settings import RegistrySettings
from wan22_testing.service_process import free_port
from wan22_testing.tiny_models import shared_folder

from .calls import attempt, error_of, kinds, serving, to_the_end, until, until_step
from .conftest import Registry

VARIANT = "t2v-a14b-tiny"


async def is_ready(service: Service) -> bool:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.server.health_port}") as channel:
        request = health_pb2.HealthCheckRequest(service="ready")
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its types lack the methods
        answer = await stub.Check(request, timeout=10.0)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def weights_of(service: Service) -> Weights:
    assert isinstance(service.worker.renderer, ModelRenderer)
    return service.worker.renderer.weights


async def test_a_worker_answers_while_it_waits_for_the_registry(
    tmp_path: Path, parameters: Callable[..., Parameters], registry: Registry
) -> None:
    version = await registry.version(VARIANT)
    port = free_port()
    async with serving(tmp_path, f"127.0.0.1:{port}", version) as (service, caller):
        worker = await caller.worker()
        assert worker.state == pb.Worker.LOADING
        assert (worker.name, worker.uid, worker.pool) == ("workers/one", "workers/one", "pools/test.pool")
        assert worker.model_version == version
        assert not await is_ready(service)
        refused = await error_of(caller.generate(parameters(VARIANT), attempt()))
        assert isinstance(refused, Unavailable)
        assert refused.reason is Reason.WORKER_LOADING
        async with serve_registry(RegistrySettings(root=tmp_path / "second", port=port, health_port=0)):
            async with ModelClient(f"127.0.0.1:{port}") as client:
                await client.push_folder(shared_folder(VARIANT), model="wan2.2-t2v-a14b-tiny", variant=VARIANT, tags=[])
            await until(service, lambda: service.worker.ready)
        assert (await caller.worker()).state == pb.Worker.IDLE
        weights = weights_of(service)
        await until(service, lambda: weights.bytes_loaded == weights.bytes_total)  # the rest comes while it is ready
        worker = await caller.worker()
        size = sum(path.stat().st_size for path in shared_folder(VARIANT).rglob("*.safetensors"))
        assert worker.bytes_loaded == worker.bytes_total == size
        assert await is_ready(service)


async def test_a_reference_is_resolved_to_its_version(registry: Registry, tmp_path: Path) -> None:
    version = await registry.version(VARIANT)
    async with serving(tmp_path, registry.address, "wan2.2-t2v-a14b-tiny:latest") as (service, caller):
        await until(service, lambda: service.worker.ready)
        assert (await caller.worker()).model_version == version


async def test_a_damaged_blob_breaks_the_worker_until_it_is_whole_again(
    registry: Registry, tmp_path: Path, parameters: Callable[..., Parameters]
) -> None:
    version = await registry.version(VARIANT)
    blob = blob_of(registry, "vae/diffusion_pytorch_model.safetensors")
    whole = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    async with serving(tmp_path, registry.address, version) as (service, caller):
        await until(service, lambda: service.worker.renderer.error is not None)
        worker = await caller.worker()
        assert worker.state == pb.Worker.BROKEN
        error = from_status(worker.error)
        assert error.code is Code.DATA_LOSS
        assert error.reason is Reason.DIGEST_MISMATCH
        assert blob.name in error.message
        assert not await is_ready(service)
        refused = await error_of(caller.generate(parameters(VARIANT), attempt()))
        assert isinstance(refused, Unavailable)
        blob.write_bytes(whole)
        await until(service, lambda: service.worker.ready)
        worker = await caller.worker()
        assert worker.state == pb.Worker.IDLE
        assert not worker.HasField("error")
        assert await is_ready(service)
        assert kinds(await to_the_end(caller.generate(parameters(VARIANT), attempt())))[-1] == "finished"


async def test_a_damaged_copy_in_the_cache_is_found_by_the_load_and_replaced(
    registry: Registry, tmp_path: Path
) -> None:
    packer = Packer(tmp_path / "packing", VARIANT)
    async with ModelClient(registry.address) as client:
        pushed = await client.push_folder(
            shared_folder(VARIANT), model="packed", variant=VARIANT, tags=[], packer=packer
        )
    async with serving(tmp_path, registry.address, pushed.name) as (service, _):
        await until(service, lambda: service.worker.ready)
    (file,) = [file for file in pushed.files if file.path == "vae/diffusion_pytorch_model.safetensors.pack"]
    blob = tmp_path / "cache" / "blobs" / "sha256" / file.digest.removeprefix("sha256:")
    content = blob.read_bytes()
    blob.write_bytes(content[:-5000] + bytes([content[-5000] ^ 1]) + content[-4999:])
    async with serving(tmp_path, registry.address, pushed.name) as (service, caller):
        await until(service, lambda: service.worker.renderer.error is not None)
        error = service.worker.renderer.error
        assert isinstance(error, DataLoss)
        assert "vae/diffusion_pytorch_model.safetensors.pack is damaged: the extent at" in error.message
        assert (await caller.worker()).state == pb.Worker.BROKEN
        await until(service, lambda: service.worker.ready)
        assert blob.read_bytes() == content
        worker = await caller.worker()
        assert worker.state == pb.Worker.IDLE
        assert not worker.HasField("error")


async def test_an_attempt_that_a_failed_load_ends_is_no_fault_of_the_generation(
    registry: Registry, tmp_path: Path, parameters: Callable[..., Parameters]
) -> None:
    version = await registry.version(VARIANT)
    async with serving(tmp_path, registry.address, version) as (service, caller):
        await until(service, lambda: service.worker.ready)
        weights = weights_of(service)
        whole = weights.model
        assert whole is not None
        weights.model = replace(whole, arrivals=(arrivals := Arrivals(["vae"])))
        stream = caller.generate(parameters(VARIANT), attempt())
        await until_step(stream, 1)
        arrivals.fail(DataLoss("vae/x is damaged."))
        refused = await error_of(stream)
        assert isinstance(refused, Unavailable)
        assert refused.reason is Reason.WORKER_LOADING
        assert "vae/x is damaged" in refused.message
        again = await error_of(caller.generate(parameters(VARIANT), attempt()))
        assert again.reason is Reason.WORKER_LOADING  # whoever attaches later hears the same
        weights.model = whole
        assert kinds(await to_the_end(caller.generate(parameters(VARIANT), attempt(number=2))))[-1] == "finished"


async def test_a_version_that_is_not_there_is_said_so(registry: Registry, tmp_path: Path) -> None:
    async with serving(tmp_path, registry.address, "nothing:1") as (service, _):
        await until(service, lambda: service.worker.renderer.error is not None)
        assert isinstance(service.worker.renderer.error, NotFound)


async def test_a_model_that_does_not_fit_its_variant_is_said_so(registry: Registry, tmp_path: Path) -> None:
    async with ModelClient(registry.address) as client:
        pushed = await client.push_folder(shared_folder(VARIANT), model="m", variant="i2v-a14b-tiny", tags=[])
    async with serving(tmp_path, registry.address, pushed.name) as (service, _):
        await until(service, lambda: service.worker.renderer.error is not None)
        error = service.worker.renderer.error
        assert isinstance(error, FailedPrecondition)
        assert error.reason is Reason.MODEL_MISFIT
        assert "in_channels is 16, where i2v-a14b-tiny has 36" in error.message


def test_a_scratch_folder_has_one_owner_and_is_emptied_by_the_next(tmp_path: Path) -> None:
    with Scratch(tmp_path / "s") as first:
        (first.make_folder() / "video.mp4").write_bytes(b"left over")
        with pytest.raises(FailedPrecondition, match="in use by another worker") as caught, Scratch(tmp_path / "s"):
            pass
        assert caught.value.reason is Reason.STORE_IN_USE
        assert len([path for path in (tmp_path / "s").iterdir() if path.is_dir()]) == 1
    with Scratch(tmp_path / "s"):
        assert [path for path in (tmp_path / "s").iterdir() if path.is_dir()] == []


def blob_of(registry: Registry, file: str) -> Path:
    content = (shared_folder(VARIANT) / file).read_bytes()
    (found,) = [path for path in registry.root.rglob("*") if path.is_file() and path.stat().st_size == len(content)]
    return found
