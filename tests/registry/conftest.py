from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from wan22.model_client import ModelClient
from wan22_registry.registry import serve
from wan22_registry.settings import RegistrySettings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
async def registry(root: Path) -> AsyncIterator[str]:
    """host:port of a registry in this process."""
    async with serve(RegistrySettings(root=root, port=0, health_port=0)) as server:
        yield f"127.0.0.1:{server.port}"


@pytest.fixture
async def client(registry: str) -> AsyncIterator[ModelClient]:
    async with ModelClient(registry) as opened:
        yield opened
