"""The port itself: what is there without any generation, how it is found, guarded and left."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import Response
from tests.gateway import rows
from tests.gateway.scripted_worker import T2V, Place, ScriptedWorkerServicer, Start, accepted, place_with

from wan22.errors import FailedPrecondition, NotFound, Reason, Wan22Error
from wan22.v1.inference_pb2 import GenerateEvent
from wan22_gateway import arriving
from wan22_gateway.gateway import serve
from wan22_gateway.http import connection, server
from wan22_gateway.identity.keys import new_secret
from wan22_gateway.settings import GatewaySettings
from wan22_testing.authority import Authority

module = pytest.mark.asyncio(loop_scope="module")


@module
async def test_health_and_readiness_say_so(http: httpx.AsyncClient) -> None:
    for path, state in (("/health", "live"), ("/ready", "ready")):
        answer = await http.get(path)
        assert (answer.status_code, answer.json()) == (200, {"state": state})
        assert (await http.head(path)).content == b""


@module
async def test_no_answer_waits_for_an_acknowledgement(monkeypatch: pytest.MonkeyPatch) -> None:
    without_delay = []

    class Seen(connection.Connection):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            accepted = transport.get_extra_info("socket")
            without_delay.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            super().connection_made(transport)

    monkeypatch.setattr(server, "Connection", Seen)
    own = server.HttpServer(Response("x"), host="127.0.0.1", port=0, stopping=asyncio.Event(), tls=None)
    async with own, httpx.AsyncClient() as client:
        assert (await client.get(own.address)).text == "x"
    assert without_delay == [1]


@module
async def test_models_are_the_served_variants_with_defaults_and_limits(http: httpx.AsyncClient) -> None:
    (model,) = (await http.get("/models")).json()["variants"]
    assert (model["name"], model["size_multiple"], model["max_frames"]) == ("ti2v-5b-tiny", 32, 241)
    assert model["defaults"]["num_frames"] == 17


@module
async def test_what_is_not_there_is_said_in_json(http: httpx.AsyncClient) -> None:
    unknown = await http.get("/modles", headers={"X-Request-Id": "mine-1"})
    assert unknown.status_code == 404
    assert unknown.headers["x-request-id"] == "mine-1"
    problem = unknown.json()["error"]
    assert (problem["code"], problem["request_id"]) == ("NOT_FOUND", "mine-1")
    assert "/openapi.json" in problem["message"]
    wrong = await http.delete("/models")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")
    odd = await http.get("/models", params={"vairant": "x"})
    assert odd.status_code == 400
    assert odd.json()["error"]["violations"][0]["field"] == "vairant"


async def scrape(http: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    """Name and sorted label values of each of our samples -> value."""
    text = (await http.get("/metrics")).text
    return {
        (sample.name.removeprefix("wan22_gateway_"), *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@module
async def test_metrics_count_what_becomes_of_generations(http: httpx.AsyncClient, place: Place) -> None:
    of = (rows.POOL, "ti2v-5b-tiny")
    before = await scrape(http)
    made = await place.client.create(variant="ti2v-5b-tiny", prompt="x")
    await place.client.wait(made.name)
    with pytest.raises(NotFound):
        await place.client.get("generations/00000000-0000-4000-8000-000000000000")
    after = await scrape(http)

    def more(*key: str) -> float:
        return after[key] - before.get(key, 0)

    assert more("generations_accepted_total", *of) == 1
    assert more("generations_ended_total", "SUCCEEDED", *of) == 1
    assert more("queue_wait_seconds_count", *of) == 1
    assert more("run_seconds_count", "SUCCEEDED", *of) == 1
    assert more("store_write_seconds_count") >= 3
    assert after["store_write_failures_total",] == 0
    assert more("grpc_calls_total", "/wan22.v1.GenerationService/CreateGeneration", "OK") == 1
    assert more("grpc_calls_total", "/wan22.v1.GenerationService/GetGeneration", "NOT_FOUND") == 1
    assert after["workers", "IDLE", rows.POOL] + after.get(("workers", "BUSY", rows.POOL), 0) == 1


async def test_metrics_count_attempts_whose_worker_was_lost(tmp_path: Path) -> None:
    def gone(start: Start) -> list[GenerateEvent | Wan22Error]:
        return [accepted(start), FailedPrecondition("forgotten", reason=Reason.ATTEMPT_RELEASED)]

    async with (
        place_with(tmp_path, ScriptedWorkerServicer(gone)) as place,
        httpx.AsyncClient(base_url=place.http) as http,
    ):
        made = await place.client.create(variant=T2V, prompt="x")
        done = await place.client.wait(made.name)
        assert (await scrape(http))["attempts_lost_total", rows.POOL, T2V] == done.attempt_count - 1 == 1


@module
async def test_metrics_count_requests_by_declared_route(http: httpx.AsyncClient) -> None:
    await http.get("/models")
    await http.get("/no/such/1")
    await http.get("/no/such/2")
    for word in ("PURGE", "MAKE", "X" * 50):  # any is allowed, by anybody
        assert (await http.request(word, "/models")).status_code == 405
    found = await scrape(http)
    assert found["http_requests_total", "405", "none", "other"] >= 3
    assert found["http_requests_total", "/models", "200", "GET"] >= 1
    assert found["http_requests_total", "404", "GET", "none"] >= 2
    assert found["generations", "QUEUED", rows.POOL, "ti2v-5b-tiny"] == 0
    assert found["process_resident_memory_bytes",] > 1e7
    assert not any("/no/such" in part for key in found for part in key)


async def test_a_taken_port_is_said_and_http_can_be_off(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        folders: dict[str, Any] = {"store": tmp_path / "a", "results": tmp_path / "b"}
        port = taken.getsockname()[1]
        with pytest.raises(FailedPrecondition, match=f"HTTP port {port} of 127.0.0.1"):
            async with serve(GatewaySettings(port=0, health_port=0, http_port=port, auth="off", **folders)):
                pass
        off = GatewaySettings(port=0, health_port=0, http="off", http_port=port, auth="off", **folders)
        async with serve(off) as serving:
            assert serving.http_port is None


async def test_only_operators_read_metrics_unless_they_are_open(tmp_path: Path) -> None:
    user, operator = new_secret(), new_secret()
    keys = [{"tenant": "t", "roles": [role], "key": key} for role, key in (("user", user), ("operator", operator))]
    (tmp_path / "tenants.json").write_text(json.dumps({"tenants": [{"name": "t"}], "keys": keys}))
    terms: dict[str, Any] = {"auth": "on", "tenants_file": tmp_path / "tenants.json", "api_key": operator}
    for opened, expected in ((False, {None: 401, user: 403, operator: 200}), (True, {None: 200})):
        folder = tmp_path / str(opened)
        async with (
            place_with(folder, ScriptedWorkerServicer(), metrics_open=opened, **terms) as place,
            httpx.AsyncClient(base_url=place.http) as http,
        ):
            for key, status in expected.items():
                headers = {"Authorization": f"Bearer {key}"} if key else {}
                answer = await http.get("/metrics", headers=headers)
                assert answer.status_code == status
                assert (answer.headers.get("www-authenticate") == "Bearer") == (status == 401)
            assert (await http.get("/health")).status_code == 200


async def test_with_certificates_it_is_https_and_follows_their_replacement(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = authority.issue("gateway")
    context = ssl.create_default_context(cafile=str(authority.ca))

    def serial(port: int, name: str | None) -> str:
        with socket.create_connection(("127.0.0.1", port)) as plain:
            context.check_hostname = name is not None
            with context.wrap_socket(plain, server_hostname=name) as wrapped:
                certificate = wrapped.getpeercert()
                assert certificate is not None
                return str(certificate["serialNumber"])

    files: dict[str, Any] = {"tls_ca": tls.ca, "tls_cert": tls.cert, "tls_key": tls.key}
    settings = GatewaySettings(
        port=0, health_port=0, http_port=0, auth="off", store=tmp_path / "a", results=tmp_path / "b", **files
    )
    async with serve(settings) as serving:
        assert serving.http_port is not None
        for name in ("localhost", None):
            first = await asyncio.to_thread(serial, serving.http_port, name)
            authority.issue("gateway")
            assert await asyncio.to_thread(serial, serving.http_port, name) != first
        async with httpx.AsyncClient(verify=context, base_url=f"https://localhost:{serving.http_port}") as http:
            assert (await http.get("/health")).status_code == 200


async def test_a_caller_that_does_not_finish_its_head_is_cut_off(
    place_alone: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    head = b"GET /health HTTP/1.1\r\nHost: x\r\n"
    for parts in ([b""], [head], [head + b"\r\n", head]):
        reader, writer = await asyncio.open_connection("127.0.0.1", place_alone.serving.http_port)
        async with asyncio.timeout(60):
            for part in parts[:-1]:
                writer.write(part)
                assert (await reader.readuntil(b'{"state":"live"}')).startswith(b"HTTP/1.1 200")
            began = time.monotonic()
            writer.write(parts[-1])
            assert await reader.read() == b""
        assert 0.1 < time.monotonic() - began < 10
        writer.close()


async def test_a_body_that_stops_coming_is_not_waited_for(place_alone: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving, "PIECE_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", place_alone.serving.http_port)
    writer.write(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
    async with asyncio.timeout(60):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in head.lower()
    assert json.loads(body)["error"]["code"] == "DEADLINE_EXCEEDED"
    writer.close()


async def test_large_bodies_are_read_a_few_at_a_time(place_alone: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving, "SMALL_BYTES", 10)
    monkeypatch.setattr(arriving, "WHOLE_SECONDS", 0.5)
    head = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
    held = [await asyncio.open_connection("127.0.0.1", place_alone.serving.http_port) for _ in range(6)]
    for _, writer in held:
        writer.write(head + b"{" + b" " * 20)
    async with asyncio.timeout(60):
        answers = [await reader.read() for reader, _ in held]  # those that wait for the others run out of time, too
        for _, writer in held:
            writer.close()
        async with httpx.AsyncClient(base_url=place_alone.http) as http:
            answer = await http.post(
                "/generate", content=b"{" + b" " * 200, headers={"Content-Type": "application/json"}
            )
    assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
    assert answer.status_code == 400  # all places are free again


async def test_each_request_is_one_line_of_the_log_and_probes_are_none(
    place_alone: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="wan22_gateway.http.boundary")
    async with httpx.AsyncClient(base_url=place_alone.http, headers={"X-Request-Id": "mine-2"}) as http:
        await http.get("/health")
        await http.get("/metrics")
        await http.get("/models", params={"secret": "x"})
        await http.get("/a%0Ab")
    lines = [record.message for record in caplog.records if record.name == "wan22_gateway.http.boundary"]
    assert [re.sub(r"\d+ ms", "N ms", line) for line in lines] == [
        "GET /models 400 N ms tenant=default request=mine-2",
        "GET /a%0Ab 404 N ms tenant=- request=mine-2",
    ]


@pytest.fixture
async def place_alone(tmp_path: Path) -> AsyncIterator[Place]:
    async with place_with(tmp_path, ScriptedWorkerServicer()) as place:
        yield place
