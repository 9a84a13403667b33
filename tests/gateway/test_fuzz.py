"""Whatever is sent to the gateway's ports, it answers with a reason that is the caller's, and lives."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wan22.keda import externalscaler_pb2
from wan22.v1 import admin_pb2, generation_pb2, pool_pb2, webhook_pb2
from wan22_gateway import gateway
from wan22_testing import tiny_tokenizer
from wan22_testing.service_process import ServiceProcess, free_port

from . import rows

T2V = "t2v-a14b-tiny"
MODULES = (generation_pb2, pool_pb2, admin_pb2, webhook_pb2, externalscaler_pb2)
METHODS = [
    method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
OURS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE}
"""What would be the gateway's own fault."""
GROWTH_BYTES = 64 << 20
"""Of the process after the first tenth of the requests: caches fill, and fragments stay."""
KNOWN_TEXTS = (
    "",
    T2V,
    rows.POOL,
    rows.VERSION,
    "workers/w1",
    "tenants/default",
    "a cat",
    "\0",
    "x" * 20_000,
    "🦊" * 513,
)


def fuzz(examples: int) -> settings:
    """So many, without time limits and a memory of earlier runs."""
    return settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None)


@dataclass(frozen=True)
class Target:
    """A gateway process, and what there is in it."""

    process: ServiceProcess
    channel: grpc.Channel
    http_port: int
    names: tuple[str, ...]

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) << 10

    def check(self) -> None:
        """Raises unless the process is there and answers."""
        assert self.process.running, self.process.log.read_text()[-4000:]
        answer = httpx.get(f"http://127.0.0.1:{self.http_port}/health", timeout=10)
        assert answer.status_code == 200


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("fuzz")
    tokenizers = folder / "gateway" / "tokenizers"
    tokenizers.mkdir(parents=True)
    tiny_tokenizer.build().save(str(tokenizers / ("0" * 64 + ".json")))
    http_port = free_port()
    process = ServiceProcess(
        "wan22_gateway",
        folder / "log",
        store=folder / "gateway",
        results=folder / "videos",
        registry="localhost:1",
        auth="off",
        http_port=http_port,
    )
    process.start()
    try:
        with grpc.insecure_channel(process.address) as channel:
            pool = pool_pb2.Pool(
                name=rows.POOL, variant=T2V, model_version=rows.VERSION, max_workers=1, default_for_variant=True
            )
            apply = channel.unary_unary(
                "/wan22.v1.PoolService/ApplyPool", pool_pb2.ApplyPoolRequest.SerializeToString, pool_pb2.Pool.FromString
            )
            apply(pool_pb2.ApplyPoolRequest(pool=pool), timeout=30, wait_for_ready=True)
            create = channel.unary_unary(
                "/wan22.v1.GenerationService/CreateGeneration",
                generation_pb2.CreateGenerationRequest.SerializeToString,
                generation_pb2.Generation.FromString,
            )
            wanted = generation_pb2.Generation(variant=T2V, parameters=generation_pb2.Parameters(prompt="a cat"))
            request = generation_pb2.CreateGenerationRequest(generation=wanted)
            names = tuple(create(request, timeout=30).name for _ in range(3))
            yield Target(process, channel, http_port, names)
    finally:
        if process.running:
            process.kill()


def scalars(field: Any) -> st.SearchStrategy[Any]:
    """Values of a field that is no message: edges, nonsense, and what means something here."""
    kinds = FieldDescriptor
    bounds = {
        kinds.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
        kinds.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
        kinds.CPPTYPE_UINT32: (0, (1 << 32) - 1),
        kinds.CPPTYPE_UINT64: (0, (1 << 64) - 1),
        kinds.CPPTYPE_ENUM: (-1, 9),
    }
    if field.cpp_type in bounds:
        low, high = bounds[field.cpp_type]
        return st.sampled_from([0, 1, 2, 4, 5, 64, 480, 832, low, high]) | st.integers(low, high)
    if field.cpp_type == kinds.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type in {kinds.CPPTYPE_FLOAT, kinds.CPPTYPE_DOUBLE}:
        return st.sampled_from([0.0, 1.0, 4.0, -1.0, 1e38]) | st.floats(width=32)
    if field.type == kinds.TYPE_BYTES:
        return st.binary(max_size=200)
    return st.sampled_from(KNOWN_TEXTS) | st.text(max_size=30)


@st.composite
def messages(draw: st.DrawFn, kind: Any, names: tuple[str, ...], depth: int = 0) -> Message:
    """A message with some of its fields, some of them wrong."""
    message: Message = kind()
    for field in kind.DESCRIPTOR.fields:
        if not draw(st.booleans()) or depth > 4:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = (scalars(field.message_type.fields_by_name[name]) for name in ("key", "value"))
            getattr(message, field.name)[draw(key)] = draw(value)
        elif field.message_type is not None:
            inner = messages(GetMessageClass(field.message_type), names, depth + 1)
            if field.is_repeated:
                getattr(message, field.name).extend(draw(st.lists(inner, max_size=3)))
            else:
                getattr(message, field.name).CopyFrom(draw(inner))
        else:
            values = scalars(field)
            if field.name in {"name", "generation"}:
                values = st.sampled_from(names) | values
            if field.is_repeated:
                getattr(message, field.name).extend(draw(st.lists(values, max_size=3)))
            else:
                setattr(message, field.name, draw(values))
    return message


@st.composite
def calls(draw: st.DrawFn, names: tuple[str, ...]) -> tuple[MethodDescriptor, list[bytes]]:
    """A method and what is sent to it: messages of its kind, or bytes that are none."""
    method = draw(st.sampled_from(METHODS))
    kind = GetMessageClass(method.input_type)
    part = messages(kind, names).map(lambda message: message.SerializeToString()) | st.binary(max_size=100)
    return method, draw(st.lists(part, max_size=3)) if method.client_streaming else [draw(part)]


def send(channel: grpc.Channel, method: MethodDescriptor, parts: list[bytes]) -> None:
    """Makes the call and takes its first answer; a fault of the gateway's own is an error."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    one, stream = parts[:1] or [b""], iter(parts)
    ended: grpc.RpcError | None = None
    try:
        if method.client_streaming:
            call: Any = channel.stream_unary(path)
            call(stream, timeout=20)
        elif method.server_streaming:
            watch: Any = channel.unary_stream(path)
            answers = watch(one[0], timeout=20)
            next(answers, None)
            answers.cancel()
        else:
            simple: Any = channel.unary_unary(path)
            simple(one[0], timeout=20)
    except grpc.RpcError as error:
        ended = error
    if isinstance(ended, grpc.Call):
        assert ended.code() not in OURS, f"{path} {parts!r}: {ended.code()} {ended.details()}"


def json_values() -> st.SearchStrategy[Any]:
    leaves = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(KNOWN_TEXTS)
    )
    keys = st.sampled_from(["prompt", "model", "variant", "seconds", "size", "parameters", "seed", "generation"])
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | st.text(max_size=9), inner, max_size=5),
    )


@st.composite
def http_requests(draw: st.DrawFn, paths: list[tuple[str, str]]) -> tuple[str, str, bytes]:
    """A method, a path, mostly one that is there, and a body."""
    method, path = draw(st.sampled_from(paths))
    while "{" in path:
        before, _, rest = path.partition("{")
        path = before + draw(st.sampled_from(["x", "generations", "%00", "..", "0" * 36])) + rest.partition("}")[2]
    query = draw(
        st.sampled_from(["", "?", "?limit=-1", "?after=x&after=y", "?%ff=%fe", "?page_size=9999999999999999999"])
    )
    body = draw(json_values().map(lambda value: json.dumps(value).encode()) | st.binary(max_size=100))
    return draw(st.sampled_from([method, "GET", "PUT"])), path + query, body


def fuzz_grpc(target: Target, examples: int) -> None:
    grown = {"count": 0, "first": 0}

    @fuzz(examples)
    @given(call=calls(target.names))
    def run(call: tuple[MethodDescriptor, list[bytes]]) -> None:
        send(target.channel, *call)
        grown["count"] += 1
        if grown["count"] == max(1, examples // 10):
            grown["first"] = target.resident_bytes()

    run()
    target.check()
    assert target.resident_bytes() - grown["first"] < GROWTH_BYTES


def fuzz_http(target: Target, examples: int) -> None:
    base = f"http://127.0.0.1:{target.http_port}"
    document = httpx.get(f"{base}/openapi.json", timeout=10).json()
    paths = [(method.upper(), path) for path, item in document["paths"].items() for method in item]
    with httpx.Client(base_url=base, timeout=20) as client:

        @fuzz(examples)
        @given(request=http_requests(paths))
        def run(request: tuple[str, str, bytes]) -> None:
            method, path, body = request
            headers = {"content-type": "application/json"}
            answer = client.request(method, path, content=body, headers=headers)
            assert answer.status_code < 500, f"{method} {path} {body!r}: {answer.status_code} {answer.text}"

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


def test_every_service_of_the_gateway_is_called() -> None:
    assert {method.containing_service.full_name for method in METHODS} == set(gateway.SERVICES)


def test_no_message_to_any_method_is_answered_by_a_fault(target: Target) -> None:
    fuzz_grpc(target, 150)


def test_no_http_request_is_answered_by_a_fault(target: Target) -> None:
    fuzz_http(target, 100)


def test_bytes_that_are_no_protocol_end_nothing_but_their_connection(target: Target) -> None:
    fuzz_bytes(target, 50)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_thousand_requests_find_no_fault_and_leave_the_memory_flat(target: Target) -> None:
    fuzz_grpc(target, 7000)
    fuzz_http(target, 2500)
    fuzz_bytes(target, 500)
