"""Calls of the Kubernetes API, against an HTTP server that takes its time."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from wan22_operator import cluster
from wan22_operator.cluster import Cluster
from wan22_operator.resources import NODE

CALLS = 8
PAUSE_SECONDS, ANSWER_SECONDS = 0.4, 2.0


async def test_a_calls_time_begins_with_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many at once wait for longer than one answer may take."""
    monkeypatch.setattr(cluster, "MOST_CALLS", 1)
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", ANSWER_SECONDS)

    async def answer(_request: web.Request) -> web.Response:
        await asyncio.sleep(PAUSE_SECONDS)  # a slow server is what is tested
        return web.json_response({"metadata": {"name": "one"}})

    app = web.Application()
    app.router.add_get("/api/v1/nodes/one", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with Cluster(Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")) as asked:
            began = time.monotonic()
            found = await asyncio.gather(*(asked.get(NODE, None, "one") for _ in range(CALLS)))
            took = time.monotonic() - began
    finally:
        await runner.cleanup()
    assert [one["metadata"]["name"] for one in found] == ["one"] * CALLS
    assert took > ANSWER_SECONDS
