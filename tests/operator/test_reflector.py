"""List and watch, against an HTTP server that says what a test wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from wan22_operator import cluster, reflector
from wan22_operator.cluster import ApiFailure, Cluster, Object
from wan22_operator.reflector import Reflector
from wan22_operator.resources import POD

LABELS = "wan22.dev/pool"


def pod(name: str, version: int) -> Object:
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}}


def event(kind: str, name: str, version: int) -> Object:
    return {"type": kind, "object": pod(name, version)}


GONE = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}


class Server:
    """Answers each list with the next of `pages`, and each watch with the next of `watches`, or stays silent."""

    def __init__(self) -> None:
        self.pages: asyncio.Queue[Object] = asyncio.Queue()
        self.watches: asyncio.Queue[list[Object]] = asyncio.Queue()
        self.asked: list[dict[str, str]] = []
        self.watching = asyncio.Event()
        """That a watch is answered no more."""

    def put(self, *pods: Object, version: int, rest: str = "") -> None:
        self.pages.put_nowait({"metadata": {"resourceVersion": str(version), "continue": rest}, "items": list(pods)})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        if "watch" not in request.query:
            return web.json_response(await self.pages.get())
        response = web.StreamResponse()
        await response.prepare(request)
        if self.watches.empty():
            self.watching.set()
        for told in await self.watches.get():
            await response.write(json.dumps(told).encode() + b"\n")
        return response


class Told:
    """What a reflector tells."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        """Versions of what there is, by name."""
        self.gone: list[str] = []

    def __call__(self, before: Object | None, now: Object | None) -> None:
        if now is not None:
            self.names[now["metadata"]["name"]] = now["metadata"]["resourceVersion"]
        elif before is not None:
            self.gone.append(before["metadata"]["name"])
            del self.names[before["metadata"]["name"]]


@asynccontextmanager
async def reflecting(server: Server, told: Told) -> AsyncIterator[Reflector]:
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/videos/pods", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with Cluster(Configuration(host=host)) as asked:
            yield Reflector(asked, POD, "videos", LABELS, kept=lambda one: one, changed=told)
    finally:
        await runner.cleanup()


@contextmanager
def running(followed: Reflector) -> Iterator[None]:
    task = asyncio.create_task(followed.run())
    try:
        yield
    finally:
        task.cancel()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "PAUSE_SECONDS", 0.01)


async def test_a_list_of_many_pages_is_followed_by_watches_that_begin_where_the_last_one_ended() -> None:
    server, told = Server(), Told()
    server.put(pod("one", 1), pod("two", 2), version=7, rest="more")
    server.put(pod("three", 3), version=7)
    server.watches.put_nowait([event("MODIFIED", "one", 8), event("DELETED", "two", 9)])
    server.watches.put_nowait([event("ADDED", "four", 10), event("BOOKMARK", "", 90)])
    async with asyncio.timeout(60), reflecting(server, told) as followed:
        with running(followed):
            await server.watching.wait()
            await followed.current()
    assert told.names == {"one": "8", "three": "3", "four": "10"}
    assert told.gone == ["two"]
    lists, watches = server.asked[:2], server.asked[2:]
    assert lists == [
        {"labelSelector": LABELS, "limit": "200"},
        {"labelSelector": LABELS, "limit": "200", "continue": "more"},
    ]
    assert [asked["resourceVersion"] for asked in watches] == ["7", "9", "90"]
    assert {asked["timeoutSeconds"] for asked in watches} == {"10"}


@pytest.mark.parametrize("end", [GONE, {"type": "ERROR", "object": {"code": 500, "message": "etcd is away"}}])
async def test_after_a_gap_what_is_no_more_is_gone(end: Object) -> None:
    server, told = Server(), Told()
    server.put(pod("stays", 1), pod("goes", 2), version=7)
    server.watches.put_nowait([event("MODIFIED", "stays", 8), end])
    server.put(pod("stays", 11), pod("comes", 12), version=20)
    async with asyncio.timeout(60), reflecting(server, told) as followed:
        with running(followed):
            await server.watching.wait()
    assert told.names == {"stays": "11", "comes": "12"}
    assert told.gone == ["goes"]
    assert server.asked[-1]["resourceVersion"] == "20"


async def test_a_watch_that_is_silent_for_too_long_is_given_up_and_until_the_list_nobody_is_told_what_is_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reflector, "WATCH_SECONDS", 0.2)
    monkeypatch.setattr(cluster, "OVERDUE_SECONDS", 0.3)
    server, told = Server(), Told()
    server.put(pod("one", 1), version=7)
    async with asyncio.timeout(60), reflecting(server, told) as followed:
        with running(followed):
            await followed.current()
            while len(server.asked) < 3:  # noqa: ASYNC110  # a list that is asked for has no event
                await asyncio.sleep(0.01)
            assert "watch" not in server.asked[2]
            waiting = asyncio.create_task(followed.current())
            await asyncio.sleep(0)
            assert not waiting.done()
            server.put(pod("two", 9), version=9)
            await waiting
    assert told.names == {"two": "9"}


async def test_who_asks_while_nothing_can_be_listed_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "ANSWER_SECONDS", 0.2)
    async with reflecting(Server(), Told()) as followed:
        with pytest.raises(ApiFailure, match="they have not been listed yet") as failure:
            await followed.current()
        assert failure.value.code == 0
