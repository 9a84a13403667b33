"""What kopf's watches ask for, and what they are given."""

from __future__ import annotations

from typing import Any

import kopf
import pytest
from aiohttp import web

from wan22_operator.watch_session import watch_session

LIST = {"kind": "PartialObjectMetadataList", "metadata": {"resourceVersion": "7"}}


@pytest.mark.parametrize(
    ("path", "accepted"),
    [
        ("/api/v1/services?limit=200", "as=PartialObjectMetadataList"),
        ("/apis/wan22.dev/v1alpha1/namespaces/videos/wanpools", "as=PartialObjectMetadataList"),
        ("/api/v1/namespaces/videos/services?watch=true&resourceVersion=7", "as=PartialObjectMetadata;"),
        ("/api/v1/nodes?watch=true", "*/*"),  # whose readiness is in their status
        ("/apis/wan22.dev/v1alpha1", "*/*"),
    ],
)
async def test_only_metadata_is_asked_for_where_an_event_only_wakes(path: str, accepted: str) -> None:
    asked, _ = await ask(path, {})
    assert accepted in asked["Accept"]
    assert asked["Authorization"] == "Bearer secret"


async def test_an_empty_list_of_metadata_is_a_list() -> None:
    _, answer = await ask("/api/v1/services", {**LIST, "items": None})
    assert answer == {**LIST, "items": []}


async def test_who_wrote_which_field_is_not_kept() -> None:
    meta = {"name": "t2v-0", "namespace": "videos", "labels": {"wan22.dev/pool": "t2v"}}
    items = [{"metadata": {**meta, "managedFields": [{"manager": "wan22-operator"}]}}]
    _, answer = await ask("/api/v1/services", {**LIST, "items": items})
    assert answer["items"] == [{"metadata": meta}]


async def ask(path: str, answer: dict[str, Any]) -> tuple[dict[str, str], Any]:
    """What an API server hears, and what the session makes of its answer."""
    heard: dict[str, str] = {}

    async def respond(request: web.Request) -> web.Response:
        heard.update(request.headers)
        return web.json_response(answer)

    app = web.Application()
    app.router.add_get("/{path:.*}", respond)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    info = kopf.ConnectionInfo(server=f"http://127.0.0.1:{port}", scheme="Bearer", token="secret")
    async with watch_session(info) as session, session.get(f"{info.server}{path}") as response:
        told = await response.json()
    await runner.cleanup()
    return heard, told
