from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from wan22.peers import Peers
from wan22.renewed_channel import RenewedChannel
from wan22.server import Server
from wan22.v1 import generation_pb2, generation_pb2_grpc
from wan22_testing.authority import Authority


class Echo(generation_pb2_grpc.GenerationServiceServicer):
    """Holds back what it is asked for by the name `held`."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.go_on = asyncio.Event()

    async def GetGeneration(self, request: generation_pb2.GetGenerationRequest, context: Any) -> Any:
        if request.name == "held":
            self.arrived.set()
            await self.go_on.wait()
        return generation_pb2.Generation(name=request.name)


@pytest.fixture
def echo() -> Any:
    servicer: Any = Echo
    return servicer()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def port(authority: Authority, echo: Any) -> AsyncIterator[int]:
    def register(server: grpc.aio.Server) -> None:
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(echo, server)

    tls = authority.issue("registry")
    async with Server(
        [register], host="127.0.0.1", port=0, tls=tls, peers=Peers.of("operator"), stop_grace=0
    ) as server:
        yield server.port


async def ask(channel: grpc.aio.Channel, name: str) -> str:
    stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
    return str((await stub.GetGeneration(generation_pb2.GetGenerationRequest(name=name), timeout=20)).name)


async def test_a_certificate_that_has_expired_is_replaced_while_the_process_runs(
    authority: Authority, port: int
) -> None:
    channel = RenewedChannel(f"127.0.0.1:{port}", authority.issue("operator", expired=True), role="registry")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask(channel.current(), "x")
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    authority.issue("operator")
    assert await ask(channel.current(), "x") == "x"
    await channel.close()


async def test_what_runs_goes_on_and_a_channel_is_opened_once_a_change(
    authority: Authority, port: int, echo: Echo
) -> None:
    channel = RenewedChannel(f"127.0.0.1:{port}", authority.issue("operator"), role="registry")
    first = channel.current()
    assert channel.current() is first
    held = asyncio.create_task(ask(first, "held"))
    await echo.arrived.wait()
    authority.issue("operator")
    second = channel.current()
    assert (second is first, channel.current() is second) == (False, True)
    assert await ask(second, "x") == "x"
    echo.go_on.set()
    assert await held == "held"
    await channel.close()
