"""The server runner over real gRPC, with a servicer that fails as it is told to."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from wan22 import health as health_module
from wan22.errors import Code, InvalidRequest, NotFound, Reason, ResourceExhausted, Wan22Error
from wan22.server import Server, refuse_unknown_fields, until_stopped
from wan22.status import from_rpc_error
from wan22.v1 import generation_pb2, generation_pb2_grpc

FAILURES: dict[str, Exception] = {
    "not-found": NotFound("There is none."),
    "full": ResourceExhausted("Full.", reason=Reason.QUEUE_FULL, retry_after=2.0),
    "bug": KeyError("secret detail"),
}


class Failing(generation_pb2_grpc.GenerationServiceServicer):
    """Raises what the name of a request says, in each of the three shapes that our services have."""

    async def GetGeneration(self, request: generation_pb2.GetGenerationRequest, context: Any) -> Any:
        if request.name in FAILURES:
            raise FAILURES[request.name]
        return generation_pb2.Generation(name=request.name)

    async def WatchGeneration(
        self, request: generation_pb2.WatchGenerationRequest, context: Any
    ) -> AsyncIterator[generation_pb2.GenerationEvent]:
        yield generation_pb2.GenerationEvent(sequence=1)
        raise FAILURES[request.name]

    async def UploadMedia(self, requests: AsyncIterator[generation_pb2.UploadMediaRequest], context: Any) -> Any:
        raise FAILURES[b"".join([request.data async for request in requests]).decode()]


def register(server: aio.Server) -> None:
    servicer: Any = Failing  # the methods that it lacks are UNIMPLEMENTED
    generation_pb2_grpc.add_GenerationServiceServicer_to_server(servicer(), server)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server([register], host="127.0.0.1", port=0, health_port=0, strict=True) as server:
        yield server


@pytest.fixture
async def stub(server: Server) -> AsyncIterator[Any]:
    async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield generation_pb2_grpc.GenerationServiceStub(channel)


async def call(stub: Any, shape: str, name: str) -> None:
    if shape == "unary":
        await stub.GetGeneration(generation_pb2.GetGenerationRequest(name=name), timeout=10)
    elif shape == "server stream":
        async for event in stub.WatchGeneration(generation_pb2.WatchGenerationRequest(name=name), timeout=10):
            assert event.sequence == 1
    else:
        await stub.UploadMedia(iter([generation_pb2.UploadMediaRequest(data=name.encode())]), timeout=10)


async def failure(stub: Any, shape: str, name: str) -> Wan22Error:
    with pytest.raises(aio.AioRpcError) as caught:
        await call(stub, shape, name)
    return from_rpc_error(caught.value)


SHAPES = ["unary", "server stream", "client stream"]


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_raised_error_arrives_as_the_same_error(stub: Any, shape: str) -> None:
    missing = await failure(stub, shape, "not-found")
    assert (type(missing), missing.message) == (NotFound, "There is none.")
    full = await failure(stub, shape, "full")
    assert (type(full), full.reason, full.retry_after) == (ResourceExhausted, Reason.QUEUE_FULL, 2.0)


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_bug_is_internal_and_its_details_stay_in_the_log(
    stub: Any, shape: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        error = await failure(stub, shape, "bug")
    assert error.code is Code.INTERNAL
    assert "KeyError" in error.message
    assert "secret detail" not in error.message
    assert "secret detail" in caplog.text


async def test_an_unknown_field_is_refused_by_its_number(stub: Any) -> None:
    request = generation_pb2.GetGenerationRequest.FromString(
        b"\x0a\x01x" + b"\xb8\x06\x01"
    )  # name = "x", field 103 = 1
    with pytest.raises(aio.AioRpcError) as caught:
        await stub.GetGeneration(request, timeout=10)
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidRequest)
    assert error.reason is Reason.UNKNOWN_FIELD
    assert error.message.startswith("The request has field number 103 in its top level")


def test_an_unknown_field_in_a_nested_message_is_refused_with_its_path() -> None:
    request = generation_pb2.CreateGenerationRequest()
    request.generation.labels["a"] = "b"
    refuse_unknown_fields(request)
    request.generation.parameters.MergeFromString(b"\xb8\x06\x01")
    with pytest.raises(InvalidRequest) as caught:
        refuse_unknown_fields(request)
    assert caught.value.violations[0].field == "generation.parameters.103"


async def test_a_server_that_is_not_strict_takes_a_newer_peers_fields() -> None:
    request = generation_pb2.GetGenerationRequest.FromString(b"\x0a\x01x\xb8\x06\x01")
    async with (
        Server([register], host="127.0.0.1", port=0) as server,
        aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        assert (await stub.GetGeneration(request, timeout=10)).name == "x"


async def health(port: int | None, service: str) -> str:
    """Asks from a thread, as kubelet does from outside."""

    def ask() -> str:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    return await asyncio.to_thread(ask)


async def test_ready_is_what_the_service_says_and_live_is_not(server: Server) -> None:
    assert await health(server.health_port, "live") == "SERVING"
    assert await health(server.health_port, "ready") == "NOT_SERVING"
    server.set_ready(True)
    assert await health(server.health_port, "ready") == "SERVING"
    with pytest.raises(grpc.RpcError, match="use '', 'live' or 'ready'"):
        await health(server.health_port, "other")


async def test_health_answers_while_the_loop_is_blocked_and_says_not_live_when_it_lasts(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.set_ready(True)
    answers: list[str] = []

    def ask() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{server.health_port}") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            for limit in (10.0, 0.0):
                monkeypatch.setattr(health_module, "HEARTBEAT_LIMIT", limit)
                answer = stub.Check(health_pb2.HealthCheckRequest(service="live"), timeout=5)
                answers.append(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()  # blocks this loop until both answers are there
    assert answers == ["SERVING", "NOT_SERVING"]


async def test_a_port_in_use_is_an_error(server: Server) -> None:
    with pytest.raises(RuntimeError, match=f"127.0.0.1:{server.port}"):
        await Server([register], host="127.0.0.1", port=server.port).__aenter__()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_asks_the_process_to_stop(number: signal.Signals) -> None:
    waiting = asyncio.create_task(until_stopped())
    await asyncio.sleep(0)
    os.kill(os.getpid(), number)
    await asyncio.wait_for(waiting, 10)
    for handled in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(handled)
