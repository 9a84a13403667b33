from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from wan22.client import Client
from wan22.connection_failure import explain
from wan22.errors import Unavailable
from wan22.peers import Peers
from wan22.server import Server
from wan22.tls import Tls
from wan22.v1 import generation_pb2_grpc
from wan22_testing.authority import Authority


def register(server: grpc.aio.Server) -> None:
    servicer: Any = generation_pb2_grpc.GenerationServiceServicer
    generation_pb2_grpc.add_GenerationServiceServicer_to_server(servicer(), server)


async def told(server: Server, tls: Tls | None) -> str:
    """What a client's caller reads that cannot be served."""
    async with Client(f"127.0.0.1:{server.port}", tls=tls, first_patience=0.3) as client:
        with pytest.raises(Unavailable) as caught:
            await client.get("generations/00000000-0000-0000-0000-000000000000")
    return caught.value.message.removeprefix(f"127.0.0.1:{server.port} could not be talked to for 0.3 s ")


@pytest.mark.parametrize(
    ("server_tls", "client_tls", "text"),
    [
        ("expired", "authority", "(its certificate is refused: certificate has expired): renew that certificate."),
        ("good", "stranger", "(its certificate is refused: it is not of the authority that WAN22_CA_FILE names): "),
        ("plaintext", "authority", "(it speaks no TLS): unset WAN22_CA_FILE, or check the address."),
        ("good", "plaintext", "(it closes the connection): it may speak TLS"),
        (
            "choosy",
            "expired",
            "(it closes the connection): it may speak TLS (then name its authority in WAN22_CA_FILE)",
        ),
    ],
)
async def test_why_there_is_no_connection_is_said(server_tls: str, client_tls: str, text: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "other").mkdir()
    kinds = {
        "plaintext": None,
        "authority": Tls(authority.ca),
        "stranger": Tls(Authority(tmp_path / "other").ca),
        "expired": authority.issue("late", expired=True),
        "good": authority.issue("gateway"),
        "choosy": authority.issue("worker"),
    }
    peers = Peers.of("gateway") if server_tls == "choosy" else None
    async with Server([register], host="127.0.0.1", port=0, tls=kinds[server_tls], peers=peers) as server:
        assert (await told(server, kinds[client_tls])).startswith(text)


def test_a_refusal_by_the_machine_is_told_as_it_is() -> None:
    failure = explain("failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused")
    assert (failure.why, failure.advice, failure.reached) == ("Connection refused", "", False)
    assert explain("").why == "no details"
