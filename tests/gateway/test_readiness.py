"""The gateway is ready while its store answers, and says why it is not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from wan22.server import Server
from wan22_gateway import readiness
from wan22_gateway.readiness import STORE_AWAY, Readiness
from wan22_gateway.store.postgres import migrate_postgres
from wan22_testing.postgres import PostgresServer
from wan22_testing.wan22_command import Wan22Command

from .scripted_worker import T2V, Place, ScriptedWorkerServicer, place_with


async def until_ready(place: Place, *, ready: bool) -> Any:
    async with asyncio.timeout(60), httpx.AsyncClient(base_url=place.http) as http:
        while True:
            answer = await http.get("/ready")
            assert (await http.get("/health")).status_code == 200
            if (answer.status_code == 200) is ready:
                return answer.json()
            await asyncio.sleep(0.05)


async def test_without_postgresql_it_is_not_ready_says_so_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wan22_gateway.store.postgres_connections.RIDE_OUT_SECONDS", 0.5)
    with PostgresServer() as server:
        url = server.url(server.create())
        await asyncio.to_thread(migrate_postgres, url, None)
        async with place_with(tmp_path, ScriptedWorkerServicer(), store=url, scratch=tmp_path / "gateway") as place:
            assert await until_ready(place, ready=True) == {"state": "ready"}
            await asyncio.to_thread(server.kill)
            assert await until_ready(place, ready=False) == {"state": "not ready", "reason": STORE_AWAY}
            command = Wan22Command(tmp_path, WAN22_ENDPOINT=f"127.0.0.1:{place.serving.port}")
            listed = await command("generations", "list")
            assert (listed.exit_code, listed.out) == (3, "")
            assert "Error: The gateway's store, PostgreSQL, is away (" in listed.err
            await asyncio.to_thread(server.start)
            assert await until_ready(place, ready=True) == {"state": "ready"}
            assert [variant.name for variant in await place.client.variants()] == [T2V]


class _Silent:
    """A store that hangs until it is told to answer."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()
        self.asked = 0

    async def ask(self) -> None:
        self.asked += 1
        await self.answer.wait()


async def test_a_store_that_hangs_is_away_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(readiness, "LOOK_SECONDS", 0.0)
    store: Any = _Silent()
    async with asyncio.timeout(60), Server([], host="127.0.0.1", port=0) as server:
        watched = Readiness(store, server)
        watched.begin()
        assert server.ready
        task = asyncio.create_task(watched.run())
        while server.ready:  # noqa: ASYNC110  # a flag for other threads has no event
            await asyncio.sleep(0.01)
        assert (watched.reason, store.asked) == (STORE_AWAY, 1)
        store.answer.set()
        while not server.ready:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert watched.reason == ""
        task.cancel()
