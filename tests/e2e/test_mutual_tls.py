"""All processes, each known by a certificate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from wan22.channels import open_channel
from wan22.client import Client
from wan22.errors import Unavailable
from wan22.v1 import inference_pb2, inference_pb2_grpc
from wan22.v1.generation_pb2 import Generation
from wan22_testing.authority import Authority
from wan22_testing.installation import Installation
from wan22_testing.tiny_models import shared_folder

T2V = "t2v-a14b-tiny"


async def test_a_video_is_made_over_tls_alone_and_only_the_gateway_commands_a_worker(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    authority = Authority(tmp_path / "pki")
    async with Installation(tmp_path, authority) as installation:
        await installation.push(T2V, shared_folder(T2V))
        await installation.serve(T2V, "t1")
        await installation.start_workers("t1")
        async with installation.client() as client:
            path = tmp_path / "out.mp4"
            done = await client.generate(path, variant=T2V, prompt="a red circle", num_inference_steps=2)
        assert done.state == Generation.SUCCEEDED
        worker = installation.workers["t1"].address
        request = inference_pb2.GetWorkerRequest()
        async with open_channel(worker, authority.issue("gateway"), role="worker") as channel:
            answer = await inference_pb2_grpc.InferenceServiceStub(channel).GetWorker(request, timeout=10)
            assert answer.name == "workers/t1"
        async with open_channel(worker, authority.issue("admin"), role="worker") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await inference_pb2_grpc.InferenceServiceStub(channel).GetWorker(request, timeout=10)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(Unavailable):
            async with Client(installation.gateway.address, first_patience=0, patience=0) as plain:
                await plain.variants()


@pytest.mark.parametrize("module", ["wan22_gateway", "wan22_registry"])
def test_a_service_does_not_listen_beyond_this_machine_in_plaintext_by_accident(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", module, "--host", "0.0.0.0", "--port", "0", "--health-port", "0"]  # noqa: S104  # is refused
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert ended.returncode == 2
    assert "tls_ca, tls_cert and tls_key" in ended.stderr
