from __future__ import annotations

import os
import random
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


@pytest.fixture
def moments() -> random.Random:
    """Where faults fall. The seed is printed, which a failing test shows; KILL_SEED repeats it."""
    seed = int(os.environ.get("KILL_SEED") or random.randrange(1 << 32))
    print(f"KILL_SEED={seed}")  # noqa: T201  # pytest keeps it for a failure's report
    return random.Random(seed)
