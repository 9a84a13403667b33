from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydantic import ValidationError

from wan22.channels import open_channel
from wan22.client import tls_from_environment
from wan22.errors import FailedPrecondition, Reason
from wan22.peers import Peers
from wan22.server import Server
from wan22.server_settings import ServerSettings
from wan22.status import from_rpc_error
from wan22.tls import Tls
from wan22.v1 import generation_pb2, generation_pb2_grpc
from wan22_testing.authority import Authority


class Echo(generation_pb2_grpc.GenerationServiceServicer):
    async def GetGeneration(self, request: generation_pb2.GetGenerationRequest, context: Any) -> Any:
        return generation_pb2.Generation(name=request.name)


def register(server: grpc.aio.Server) -> None:
    servicer: Any = Echo
    generation_pb2_grpc.add_GenerationServiceServicer_to_server(servicer(), server)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def server(authority: Authority) -> AsyncIterator[Server]:
    tls = authority.issue("worker")
    async with Server([register], host="127.0.0.1", port=0, tls=tls, peers=Peers.of("gateway"), stop_grace=0) as server:
        yield server


async def ask(port: int, tls: Tls | None) -> str:
    async with open_channel(f"localhost:{port}", tls) as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.GetGenerationRequest(name="x")
        return str((await stub.GetGeneration(request, timeout=5)).name)


async def refusal(port: int, tls: Tls | None) -> tuple[grpc.StatusCode, Reason]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(port, tls)
    return caught.value.code(), from_rpc_error(caught.value).reason


async def test_a_peer_of_a_right_name_is_let_in_and_nobody_else(
    server: Server, authority: Authority, tmp_path: Path
) -> None:
    assert await ask(server.port, authority.issue("gateway")) == "x"
    denied = (grpc.StatusCode.PERMISSION_DENIED, Reason.ROLE_MISSING)
    assert await refusal(server.port, authority.issue("stranger")) == denied
    unavailable = grpc.StatusCode.UNAVAILABLE  # the handshake fails
    assert (await refusal(server.port, None))[0] is unavailable
    assert (await refusal(server.port, Tls(authority.ca)))[0] is unavailable
    (tmp_path / "other").mkdir()
    impostor = Authority(tmp_path / "other").issue("gateway")
    assert (await refusal(server.port, Tls(authority.ca, impostor.cert, impostor.key)))[0] is unavailable
    assert (await refusal(server.port, impostor))[0] is unavailable  # nor does it trust our server


async def test_a_server_that_is_reached_by_its_address_is_known_by_its_role(authority: Authority) -> None:
    gateway = authority.issue("gateway")
    async with Server([register], host="127.0.0.1", port=0, tls=authority.issue("worker"), stop_grace=0) as server:
        for role, good in (("worker", True), ("registry", False)):
            async with open_channel(f"127.0.0.1:{server.port}", gateway, role=role) as channel:
                stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
                call = stub.GetGeneration(generation_pb2.GetGenerationRequest(name="x"), timeout=5)
                if good:
                    assert (await call).name == "x"
                else:
                    with pytest.raises(grpc.aio.AioRpcError, match="Hostname Verification"):
                        await call


async def test_without_names_the_port_is_encrypted_and_a_client_needs_no_certificate(authority: Authority) -> None:
    tls = authority.issue("gateway")
    async with Server([register], host="127.0.0.1", port=0, tls=tls, stop_grace=0) as server:
        assert await ask(server.port, Tls(authority.ca)) == "x"


async def test_a_replaced_certificate_is_shown_at_the_next_handshake(server: Server, authority: Authority) -> None:
    import asyncio

    async def shown() -> bytes:
        context = ssl.create_default_context(cafile=str(authority.ca))
        context.load_cert_chain(gateway.cert or "", gateway.key)
        context.set_alpn_protocols(["h2"])
        _, writer = await asyncio.open_connection("localhost", server.port, ssl=context)
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return bytes(certificate)

    gateway = authority.issue("gateway")
    first = await shown()
    assert await shown() == first
    authority.issue("worker")
    second = await shown()
    assert second != first
    assert gateway.cert is not None
    (authority.folder / "worker.key").unlink()  # in the middle of a replacement: the last whole one stays
    assert await shown() == second


def test_missing_files_are_named(tmp_path: Path) -> None:
    tls = Tls(tmp_path / "none.pem", tmp_path / "c.pem", tmp_path / "k.pem")
    for use in (tls.channel_credentials, tls.stamp, lambda: tls.server_credentials(require_client=True)):
        with pytest.raises(FailedPrecondition, match=r"none\.pem cannot be read: No such file"):
            use()


@pytest.mark.parametrize(
    ("given", "good"),
    [
        ({}, True),
        ({"host": "127.0.0.1"}, True),
        ({"host": "::1"}, True),
        ({"host": "localhost"}, True),
        ({"host": "0.0.0.0"}, False),  # noqa: S104  # that is the point
        ({"host": "gateway.example"}, False),
        ({"host": "0.0.0.0", "plaintext": True}, True),  # noqa: S104
        ({"host": "0.0.0.0", "tls_ca": "a", "tls_cert": "b", "tls_key": "c"}, True),  # noqa: S104
        ({"tls_ca": "a"}, False),
        ({"tls_cert": "b", "tls_key": "c"}, False),
    ],
)
def test_plaintext_beyond_this_machine_is_asked_for_by_name(given: dict[str, Any], good: bool) -> None:
    if good:
        assert (ServerSettings(**given).tls is not None) == ("tls_ca" in given)
        return
    with pytest.raises(ValidationError, match="tls_key"):
        ServerSettings(**given)


def test_clients_read_their_files_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAN22_CA_FILE", raising=False)
    assert tls_from_environment() is None
    for part in ("CA", "CERT", "KEY"):
        monkeypatch.setenv(f"WAN22_{part}_FILE", f"/{part}")
    assert tls_from_environment() == Tls(Path("/CA"), Path("/CERT"), Path("/KEY"))
