from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from tests.gateway.scripted_worker import Place, ScriptedWorkerServicer, place_with


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with place_with(tmp_path_factory.mktemp("http"), ScriptedWorkerServicer()) as place:
        yield place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(place: Place) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=place.http, timeout=30) as client:
        yield client
