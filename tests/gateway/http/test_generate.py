"""/generate and /generations: a video over HTTP, from the request to its last byte."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from tests.gateway.scripted_worker import DIGEST, VIDEO, Place, place_at, serve

from wan22.v1.generation_pb2 import Generation
from wan22.variants import VARIANTS
from wan22_gateway.http import event_stream

from .paced_worker import PacedWorkerServicer
from .server_events import ServerEvent, events_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
VARIANT = "ti2v-5b-tiny"
ASKED: dict[str, Any] = {"variant": VARIANT, "prompt": "a kite"}
SSE = {"Accept": "text/event-stream"}


def picture(color: tuple[int, int, int] = (1, 2, 3)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), color).save(file, "PNG")
    return file.getvalue()


async def detached(http: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await http.post("/generate", json={**ASKED, "detach": True, **more})
    assert answer.status_code == 202, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def until(name: str, events: AsyncIterator[ServerEvent]) -> AsyncIterator[ServerEvent]:
    """The events up to the first one of a name."""
    async for event in events:
        yield event
        if event.name == name:
            return


async def test_a_request_waits_and_returns_the_mp4_with_its_digest(http: httpx.AsyncClient, place: Place) -> None:
    asked = {**ASKED, "parameters": {"num_frames": 5, "seed": "7", "solver": "EULER"}, "labels": {"k": "v"}}
    answer = await http.post("/generate", json={**asked, "priority": "HIGH", "finish_within": "600s"})
    assert answer.status_code == 200, answer.text
    assert answer.content == VIDEO
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-length"] == str(len(VIDEO))
    assert answer.headers["etag"] == f'"{hashlib.sha256(VIDEO).hexdigest()}"'
    assert answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(hashlib.sha256(VIDEO).digest()).decode()}:"
    made = await place.client.get(answer.headers["wan22-generation"])
    assert (made.parameters.num_frames, made.parameters.seed, made.parameters.fps) == (5, 7, VARIANTS[VARIANT].fps)
    assert (made.priority, dict(made.labels)) == (Generation.HIGH, {"k": "v"})
    assert made.deadline.ToMicroseconds() - made.create_time.ToMicroseconds() == pytest.approx(600e6, abs=2e6)


async def test_detached_it_answers_at_once_and_a_repeated_request_id_is_the_same(http: httpx.AsyncClient) -> None:
    made = await detached(http, request_id="once")
    assert made["state"] in {"QUEUED", "RUNNING"}
    again = await http.post("/generate", json={**ASKED, "detach": True, "request_id": "once"})
    assert again.json()["name"] == made["name"]
    assert again.headers["location"] == f"/{made['name']}"
    other = await http.post("/generate", json={**ASKED, "prompt": "else", "request_id": "once"})
    assert (other.status_code, other.json()["error"]["reason"]) == (409, "REQUEST_ID_REUSED")
    async with http.stream("GET", f"/{made['name']}/events") as stream:
        last = [event async for event in events_of(stream)][-1]
    assert last.data["generation"]["state"] == "SUCCEEDED"
    assert (await http.get(f"/{made['name']}/recipe")).json() == {"made": "by hand"}
    assert (await http.delete(f"/{made['name']}")).status_code == 204
    gone = await http.get(f"/{made['name']}")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "NOT_FOUND")


async def test_events_say_state_progress_place_and_where_the_video_is(http: httpx.AsyncClient) -> None:
    async with http.stream("POST", "/generate", json=ASKED, headers=SSE) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        seen = [event async for event in events_of(stream)]
    numbered = [int(event.id) for event in seen if event.id]
    assert numbered == list(range(1, len(numbered) + 1))
    states = [event.data["state_change"]["state"] for event in seen if event.name == "state"]
    assert states == ["QUEUED", "RUNNING", "SUCCEEDED"]
    steps = [event.data for event in seen if event.name == "progress"]
    assert {"step": 2, "num_steps": 4}.items() <= steps[1]["progress"].items()
    assert steps[1]["predicted_end_time"] > steps[1]["event_time"]
    assert seen[-1].name == "done"
    assert seen[-1].data["generation"]["video"] == {"size_bytes": str(len(VIDEO)), "digest": DIGEST}
    assert (await http.get(seen[-1].data["video_url"])).content == VIDEO


async def test_previews_come_in_the_stream_as_base64_and_who_comes_late_gets_the_newest(
    http: httpx.AsyncClient, worker: PacedWorkerServicer
) -> None:
    worker.go.clear()
    made = await detached(http, preview_interval=2)
    assert made["preview_interval"] == 2
    for _ in range(2):
        async with http.stream("GET", f"/{made['name']}/events") as stream:
            event = [event async for event in until("preview", events_of(stream))][-1]
        assert (event.id, event.data["preview"]["step"], event.data["preview"]["num_steps"]) == ("", 2, 4)
        with Image.open(io.BytesIO(base64.b64decode(event.data["preview"]["image"]))) as image:
            assert (image.format, image.size) == ("WEBP", (8, 6))
    async with http.stream("GET", f"/{made['name']}/events") as stream:
        worker.go.set()
        event = [event async for event in events_of(stream)][-1]
    assert event.data["generation"]["state"] == "SUCCEEDED"
    async with http.stream("GET", f"/{made['name']}/events") as stream:
        assert "preview" not in [event.name async for event in events_of(stream)]


async def test_a_broken_stream_goes_on_behind_the_last_event_seen(
    http: httpx.AsyncClient, worker: PacedWorkerServicer
) -> None:
    worker.go.clear()
    blocking = await detached(http)
    async with http.stream("GET", f"/{blocking['name']}/events") as stream:
        assert "attempt" in [event.name async for event in until("attempt", events_of(stream))]
    made = await detached(http)
    async with http.stream("GET", f"/{made['name']}/events") as stream:
        events = events_of(stream)
        assert (await anext(events)).name == "state"
        async for event in events:  # until its worker's other work has been looked at
            assert (event.name, event.id, event.data["queue"]["queue_position"]) == ("queue", "", 1)
            if "predicted_end_time" in event.data:
                break
        assert event.data["predicted_end_time"] > event.data["queue"]["predicted_start_time"]
    async with http.stream("GET", f"/{made['name']}/events", headers={"Last-Event-ID": "1"}) as stream:
        worker.go.set()
        seen = [event async for event in events_of(stream)]
    assert next(event.id for event in seen if event.id) == "2"
    assert seen[-1].data["generation"]["state"] == "SUCCEEDED"
    async with http.stream("GET", f"/{made['name']}/events", params={"after": 99}) as stream:
        assert stream.status_code == 400
        assert json.loads(await stream.aread())["error"]["code"] == "OUT_OF_RANGE"
    assert (await http.get(f"/{blocking['name']}")).json()["state"] == "SUCCEEDED"


@pytest.mark.parametrize("accept", ["video/mp4", "text/event-stream"])
async def test_who_hangs_up_cancels(
    http: httpx.AsyncClient, place: Place, worker: PacedWorkerServicer, accept: str
) -> None:
    worker.go.clear()
    asked = {**ASKED, "request_id": f"hang-up-{accept}"}
    first = asyncio.create_task(http.post("/generate", json=asked, headers={"Accept": accept}))
    second = asyncio.create_task(http.post("/generate", json=asked, headers={"Accept": accept}))
    await worker.running.wait()
    name = f"{worker.starts[-1].attempt.generation}"
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert (await http.get(f"/{name}")).json().get("cancel_requested_time") is None  # the other one still waits
    second.cancel()
    async with asyncio.timeout(60):
        assert (await place.client.wait(name)).state == Generation.CANCELLED
    worker.go.set()


async def test_what_was_cancelled_elsewhere_or_failed_is_an_error_that_names_it(
    http: httpx.AsyncClient, worker: PacedWorkerServicer
) -> None:
    worker.go.clear()
    waiting = asyncio.create_task(http.post("/generate", json=ASKED))
    await worker.running.wait()
    name = worker.starts[-1].attempt.generation
    cancelled = await http.post(f"/{name}/cancel")
    assert cancelled.json()["cancel_requested_time"]
    answer = await waiting
    worker.go.set()
    assert (answer.status_code, answer.json()["error"]["metadata"]) == (499, {"generation": name})
    no_video = await http.get(f"/{name}/video")
    assert (no_video.status_code, no_video.json()["error"]["reason"]) == (409, "VIDEO_NOT_READY")


async def test_an_image_comes_as_base64_data_url_name_or_file(http: httpx.AsyncClient, place: Place) -> None:
    png = picture()
    text = base64.b64encode(png).decode()
    named = (await http.post("/media", files={"image": png})).json()["name"]
    assert (await http.post("/media", json={"image": text})).json() == {"name": named}
    for image in (text, f"data:image/png;base64,{text}", named):
        made = await detached(http, image=image)
        assert made["parameters"]["image"] == named
    form = {"variant": VARIANT, "prompt": "a kite", "parameters": '{"seed": 3}', "detach": "true"}
    answer = await http.post("/generate", data=form, files={"image": png})
    assert answer.status_code == 202, answer.text
    assert (answer.json()["parameters"]["image"], answer.json()["parameters"]["seed"]) == (named, "3")


BAD: list[tuple[dict[str, Any], int, str]] = [
    ({"variant": "none", "prompt": "x"}, 404, ""),
    ({**ASKED, "parameters": {"num_frames": 18}}, 400, "parameters.num_frames"),
    ({**ASKED, "parameters": {"num_frames": "17"}}, 400, "parameters.num_frames"),
    ({**ASKED, "parameters": {"numb_frames": 17}}, 400, "parameters.numb_frames"),
    ({**ASKED, "prompt": ""}, 400, "parameters.prompt"),
    ({**ASKED, "image": "https://example.org/a.png"}, 400, "image"),
    ({**ASKED, "image": "no base 64"}, 400, "image"),
    ({**ASKED, "image": base64.b64encode(b"no image").decode()}, 400, "image"),
    ({**ASKED, "last_image": base64.b64encode(b"no image").decode()}, 400, "last_image"),
    ({**ASKED, "labels": {"": "x"}}, 400, "labels"),
    ({**ASKED, "priority": "URGENT"}, 400, "priority"),
    ({**ASKED, "deadline": "tomorrow"}, 400, ""),
    ({"prompt": "x"}, 400, "variant"),
    ({**ASKED, "count": 2}, 400, "count"),
    ({**ASKED, "preview_interval": 101}, 400, "preview_interval"),
]


@pytest.mark.parametrize(("asked", "status", "field"), BAD, ids=lambda value: str(value)[:60])
async def test_a_bad_request_is_refused_with_the_field_named(
    http: httpx.AsyncClient, asked: dict[str, Any], status: int, field: str
) -> None:
    answer = await http.post("/generate", json={**asked, "detach": True})
    assert answer.status_code == status, answer.text
    assert [violation["field"] for violation in answer.json()["error"]["violations"]] == [field] * bool(field)


async def test_what_is_no_body_at_all_is_refused(http: httpx.AsyncClient) -> None:
    kind = {"Content-Type": "application/json"}
    assert (await http.post("/generate", content=b"{", headers=kind)).status_code == 400
    assert (await http.post("/generate", content=b'{"variant": "\\ud800"}', headers=kind)).status_code == 400
    assert (await http.post("/generate", content=b"variant=x")).status_code == 415
    reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
    head = f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {65 << 20}\r\n\r\n"
    writer.write(head.encode())
    huge = (await reader.read()).decode()  # to the end: the rest is not waited for
    assert huge.startswith("HTTP/1.1 413 ")
    assert "POST /media first" in huge
    writer.close()


async def test_a_part_of_a_video_comes_by_range(http: httpx.AsyncClient) -> None:
    answer = await http.post("/generate", json=ASKED)
    url, etag = f"/{answer.headers['wan22-generation']}/video", answer.headers["etag"]
    size = len(VIDEO)
    for asked, first, last in (
        ("bytes=0-0", 0, 0),
        ("bytes=5-1200000", 5, 1_200_000),
        (f"bytes={size - 3}-", size - 3, size - 1),
        ("bytes=-7", size - 7, size - 1),
        (f"bytes=9-{size * 2}", 9, size - 1),
    ):
        part = await http.get(url, headers={"Range": asked, "If-Range": etag})
        assert part.status_code == 206
        assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
        assert part.content == VIDEO[first : last + 1]
    for asked in ("bytes=5-2", "bytes=0-1,5-6", "lines=0-1"):  # bad, several, unknown: the whole, by RFC 9110
        whole = await http.get(url, headers={"Range": asked})
        assert (whole.status_code, whole.content) == (200, VIDEO)
    beyond = await http.get(url, headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    other = await http.get(url, headers={"Range": "bytes=0-0", "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, VIDEO)
    known = await http.get(url, headers={"If-None-Match": etag})
    assert (known.status_code, known.content) == (304, b"")
    head = await http.head(url)
    assert (head.headers["content-length"], head.content) == (str(size), b"")


async def test_a_silent_stream_has_heartbeats(
    http: httpx.AsyncClient, worker: PacedWorkerServicer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.05)
    worker.go.clear()
    made = await detached(http)
    async with http.stream("GET", f"/{made['name']}/events") as stream:
        async for line in stream.aiter_lines():
            if line == ": still here":
                worker.go.set()
    assert worker.go.is_set()


async def test_a_gateway_that_stops_says_where_to_go_on(tmp_path: Path) -> None:
    worker = PacedWorkerServicer()
    worker.go.clear()
    async with httpx.AsyncClient(timeout=30) as http, serve(worker) as address:
        async with place_at(tmp_path, address, VARIANT) as place:
            waiting = asyncio.create_task(http.post(f"{place.http}/generate", json=ASKED))
            await worker.running.wait()
            name = worker.starts[-1].attempt.generation
            watching = http.stream("GET", f"{place.http}/{name}/events")
            stream = await watching.__aenter__()
            events = events_of(stream)
            first = await anext(events)
            assert first.data["state_change"]["state"] == "QUEUED"
        rest = [event async for event in events]
        await watching.__aexit__(None, None, None)
        assert rest[-1].name == "resume"
        seen = [event.id for event in (first, *rest) if event.id]
        assert rest[-1].data == {"url": f"/{name}/events", "last_event_id": seen[-1]}
        answer = await waiting
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["error"]["metadata"] == {"generation": name}
        worker.go.set()
        async with place_at(tmp_path, address, VARIANT) as place:  # what was accepted goes on
            headers = {"Last-Event-ID": rest[-1].data["last_event_id"]}
            async with http.stream("GET", f"{place.http}/{name}/events", headers=headers) as stream:
                last = [event async for event in events_of(stream)][-1]
            assert last.data["generation"]["state"] == "SUCCEEDED"
