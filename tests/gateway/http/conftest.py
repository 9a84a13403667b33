from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from tests.gateway.scripted_worker import Place, place_with

from .paced_worker import PacedWorkerServicer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> PacedWorkerServicer:
    return PacedWorkerServicer()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory, worker: PacedWorkerServicer) -> AsyncIterator[Place]:
    async with place_with(tmp_path_factory.mktemp("http"), worker, variant="ti2v-5b-tiny") as place:
        yield place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(place: Place) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=place.http, timeout=30) as client:
        yield client
