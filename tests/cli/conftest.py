from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpc import aio

from wan22.server import Server
from wan22.v1.generation_pb2_grpc import add_GenerationServiceServicer_to_server
from wan22_testing.memory_gateway_servicer import MemoryGateway
from wan22_testing.wan22_command import Wan22Command


@pytest.fixture
def gateway() -> MemoryGateway:
    return MemoryGateway()


@pytest.fixture
async def endpoint(gateway: MemoryGateway) -> AsyncIterator[str]:
    def register(server: aio.Server) -> None:
        add_GenerationServiceServicer_to_server(gateway, server)

    async with Server([register], host="127.0.0.1", port=0, stop_grace=0) as server:
        yield f"127.0.0.1:{server.port}"


@pytest.fixture
def wan22(tmp_path: Path, endpoint: str) -> Wan22Command:
    """The command beside a gateway in memory."""
    return Wan22Command(tmp_path, WAN22_ENDPOINT=endpoint)
