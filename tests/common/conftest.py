from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from wan22.model_client import ModelClient

from .model_service import Watched, serve


@pytest.fixture
def registry(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "registry")


@pytest.fixture
async def client(registry: Watched) -> AsyncIterator[ModelClient]:
    async with serve(registry) as address, ModelClient(address, patience=5) as opened:
        yield opened
