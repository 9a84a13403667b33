"""Whatever is sent to the gateway's ports, it answers with a reason that is the caller's, and lives."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wan22.v1 import admin_pb2, generation_pb2, pool_pb2
from wan22_testing import tiny_tokenizer
from wan22_testing.postgres import PostgresServer
from wan22_testing.service_process import ServiceProcess, free_port

from . import rows
from .good_requests import GOOD, SLOTS, WANTED
from .scripted_worker import T2V, ScriptedWorkerServicer, serve
from .wrong_requests import METHODS, calls, http_requests

Code = grpc.StatusCode
OURS = {Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS, Code.UNIMPLEMENTED, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED}
"""What would be the gateway's own fault; the last one is that of a call that hangs."""
REGISTRY = "localhost:1"
AWAY = (REGISTRY, "the gateway still looks for its workers")
"""What an UNAVAILABLE says that is no fault: nobody listens at the registry's address, and pools are made by and by."""
GROWTH_BYTES = 64 << 20
"""Of the process after the first tenth of the requests: caches fill, and fragments stay."""


def fuzz(examples: int) -> settings:
    """So many, without time limits and a memory of earlier runs."""
    return settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None)


@dataclass(frozen=True)
class Target:
    """A gateway process, and what there is in it."""

    process: ServiceProcess
    channel: grpc.Channel
    http_port: int
    pool: pool_pb2.Pool
    """The default one, which leads to a worker."""
    there: dict[str, str] = field(default_factory=dict)
    """By slot the id of a generation that is there."""

    def fill(self) -> None:
        """Puts a generation into each slot that has none, whatever pools and quotas have become."""
        self._call("PoolService/ApplyPool", pool_pb2.ApplyPoolRequest(pool=self.pool))
        free = admin_pb2.Tenant(name="tenants/default")
        self._call("AdminService/ApplyTenant", admin_pb2.ApplyTenantRequest(tenant=free))
        wanted = generation_pb2.CreateGenerationRequest(generation=WANTED)
        for slot in SLOTS:
            if slot not in self.there:
                answer = self._call("GenerationService/CreateGeneration", wanted)
                made = generation_pb2.Generation.FromString(answer)
                self.there[slot] = made.name.removeprefix("generations/")

    def _call(self, method: str, request: Message) -> bytes:
        call: Any = self.channel.unary_unary(f"/wan22.v1.{method}", type(request).SerializeToString)
        answer: bytes = call(request, timeout=30, wait_for_ready=True)
        return answer

    def put_in(self, text: bytes) -> bytes:
        """A text with the ids of generations that are there in the places of their slots, which are as long."""
        for slot, identity in self.there.items():
            text = text.replace(slot.encode(), identity.encode())
        return text

    def gone(self, part: bytes) -> None:
        """Takes note of a deletion."""
        for slot, identity in list(self.there.items()):
            if identity.encode() in part:
                del self.there[slot]
        self.fill()

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) << 10

    def check(self) -> None:
        """Raises unless the process is there and answers."""
        assert self.process.running, self.process.log.read_text()[-4000:]
        answer = httpx.get(f"http://127.0.0.1:{self.http_port}/health", timeout=10)
        assert answer.status_code == 200


@contextmanager
def working() -> Iterator[str]:
    """A worker that makes a video of whatever comes, in a thread of its own; yields its host:port."""
    loop, stop, up = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    address = ""

    async def run() -> None:
        nonlocal address
        async with serve(ScriptedWorkerServicer()) as address:
            up.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    up.wait()
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def new_database(request: pytest.FixtureRequest) -> str:
    """The URL of a migrated one."""
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.url(server.create(request.getfixturevalue("migrated")))


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("fuzz")
    tokenizers = folder / "gateway" / "tokenizers"
    tokenizers.mkdir(parents=True)
    tiny_tokenizer.build().save(str(tokenizers / ("0" * 64 + ".json")))
    http_port = free_port()
    process = ServiceProcess(
        "wan22_gateway",
        folder / "log",
        store=folder / "gateway" if request.param == "sqlite" else new_database(request),
        scratch=folder / "gateway",
        results=folder / "videos",
        registry=REGISTRY,
        auth="off",
        http_port=http_port,
        queue_limit=10_000,
    )
    process.start()
    try:
        with working() as worker, grpc.insecure_channel(process.address) as channel:
            reached = Target(process, channel, http_port, rows.served_pool(worker, T2V))
            reached.fill()
            yield reached
    finally:
        if process.running:
            process.kill()


def send(target: Target, method: MethodDescriptor, parts: list[bytes]) -> None:
    """Makes the call and takes its first answer; a fault of the gateway's own is an error."""
    channel, path = target.channel, f"/{method.containing_service.full_name}/{method.name}"
    parts = [target.put_in(part) for part in parts]
    one, stream = parts[0] if parts else b"", iter(parts)
    ended: grpc.RpcError | None = None
    try:
        if method.client_streaming:
            call: Any = channel.stream_unary(path)
            call(stream, timeout=20)
        elif method.server_streaming:
            watch: Any = channel.unary_stream(path)
            answers = watch(one, timeout=20)
            next(answers, None)
            answers.cancel()
        else:
            simple: Any = channel.unary_unary(path)
            simple(one, timeout=20)
    except grpc.RpcError as error:
        ended = error
    if isinstance(ended, grpc.Call):
        code, said = ended.code(), ended.details() or ""
        away = code is Code.UNAVAILABLE and any(text in said for text in AWAY)
        assert away or code not in OURS, f"{path} {parts!r}: {code} {said}"
    elif method.name == "DeleteGeneration":
        target.gone(one)


def fuzz_grpc(target: Target, examples: int) -> None:
    @fuzz(examples)
    @given(call=calls())
    def run(call: tuple[MethodDescriptor, list[bytes]]) -> None:
        send(target, *call)

    run()
    target.check()


def fuzz_http(target: Target, examples: int) -> None:
    base = f"http://127.0.0.1:{target.http_port}"
    document = httpx.get(f"{base}/openapi.json", timeout=10).json()
    paths = [(method.upper(), path) for path, item in document["paths"].items() for method in item]
    with httpx.Client(base_url=base, timeout=20) as client:

        @fuzz(examples)
        @given(request=http_requests(paths))
        def run(request: tuple[str, str, bytes]) -> None:
            method, path, body = request
            there = target.put_in(path.encode())
            headers = {"content-type": "application/json"}
            answer = client.request(method, there.decode(), content=body, headers=headers)
            assert answer.status_code < 500, f"{method} {path} {body!r}: {answer.status_code} {answer.text}"
            if method == "DELETE" and answer.is_success:
                target.gone(there)

        run()
    target.check()


def fuzz_bytes(target: Target, examples: int) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

    @fuzz(examples)
    @given(
        port=st.sampled_from([target.process.port, target.http_port]), start=st.booleans(), data=st.binary(max_size=300)
    )
    def run(port: int, *, start: bool, data: bytes) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(preface + data if start else data)

    run()
    target.check()


def test_every_method_that_takes_anything_has_a_request_that_is_in_order() -> None:
    taking = {method.name for method in METHODS if method.input_type.fields}
    by_name_of_ours = {"RevokeKey", "ReleaseQuarantined", "ListQuarantined", "ListKeys", "DeleteWebhook", "Redeliver"}
    assert GOOD.keys() | by_name_of_ours >= taking


def test_no_message_to_any_method_is_answered_by_a_fault(target: Target) -> None:
    fuzz_grpc(target, 300)


def test_no_http_request_is_answered_by_a_fault(target: Target) -> None:
    fuzz_http(target, 100)


def test_bytes_that_are_no_protocol_end_nothing_but_their_connection(target: Target) -> None:
    fuzz_bytes(target, 50)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_thousand_requests_find_no_fault_and_leave_the_memory_flat(target: Target) -> None:
    fuzz_grpc(target, 1000)
    first = target.resident_bytes()
    fuzz_grpc(target, 6000)
    fuzz_http(target, 2500)
    fuzz_bytes(target, 500)
    assert target.resident_bytes() - first < GROWTH_BYTES
