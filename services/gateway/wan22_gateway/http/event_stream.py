"""A generation's events as server-sent events (html.spec.whatwg.org, server-sent events)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import Field
from starlette.types import Receive, Scope, Send

from wan22.errors import Wan22Error
from wan22.v1 import generation_pb2
from wan22.v1.generation_pb2 import Generation, GenerationEvent
from wan22_gateway.generation_servicer import GenerationServicer
from wan22_gateway.http.failure import problem
from wan22_gateway.http.hang_up import HungUp, Stopping, while_connected
from wan22_gateway.http.message_model import to_json
from wan22_gateway.http.model import Model

HEARTBEAT_SECONDS = 15.0
"""A comment is sent at least so often: proxies close what is silent, and a dead caller shows itself."""
RETRY_MILLISECONDS = 2000
NAMES = {
    "state_change": "state",
    "attempt_start": "attempt",
    "attempt_end": "attempt_end",
    "progress": "progress",
    "queue": "queue",
    "preview": "preview",
}
"""Events by the field of GenerationEvent that they are in; others are named as their field."""


class SentEvent(Model):
    """One event of a stream."""

    event: str = Field(examples=[*NAMES.values(), "done", "resume", "error"])
    data: str
    """JSON: a GenerationEvent, with predicted_end_time where that can be said; of `done` the generation and where its
    video is; of `resume` where to go on; of `error` what an error's body has."""
    id: str | None = None
    """The number of the event, for Last-Event-ID; absent where it has none."""


class EventStream:
    """An ASGI application that sends a generation's events behind a sequence number, and `done` behind the last one.

    When the server stops the stream ends with `resume`. `left` is called at the end, and told whether the caller was
    the one who went.
    """

    def __init__(
        self,
        servicer: GenerationServicer,
        generation: Generation,
        after_sequence: int,
        stopping: asyncio.Event,
        left: Callable[[bool], Awaitable[None]] | None = None,
    ) -> None:
        self._servicer = servicer
        self._generation = generation
        self._sequence = after_sequence
        self._stopping = stopping
        self._left = left
        self._end = generation.predicted_end_time if generation.HasField("predicted_end_time") else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams until the final event."""
        request = generation_pb2.WatchGenerationRequest(name=self._generation.name, after_sequence=self._sequence)
        events = self._servicer.WatchGeneration(request, None)
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # or nginx would hold them back
            (b"wan22-generation", self._generation.name.encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        last, hung_up = b"", False
        try:
            if scope["method"] != "HEAD":
                await while_connected(self._pump(events, send), receive, self._stopping)
        except Stopping:
            where = {"url": f"/{self._generation.name}/events", "last_event_id": str(self._sequence)}
            last = b": This gateway stops: connect again with Last-Event-ID.\n\n" + _event("resume", where)
        except HungUp:
            hung_up = True
        finally:
            if self._left is not None:
                await self._left(hung_up)
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _pump(self, events: AsyncIterator[GenerationEvent], send: Send) -> None:
        async def put(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        await put(f"retry: {RETRY_MILLISECONDS}\n\n".encode())
        try:
            async for event in _with_heartbeats(events):
                await put(b": still here\n\n" if event is None else self._encode(event))
            request = generation_pb2.GetGenerationRequest(name=self._generation.name)
            await put(_done(await self._servicer.GetGeneration(request, None)))
        except Wan22Error as error:  # deleted meanwhile, say: the answer has begun
            await put(_event("error", problem(error, "").model_dump()))

    def _encode(self, event: GenerationEvent) -> bytes:
        kind = event.WhichOneof("event") or ""
        data = to_json(event)
        if kind == "attempt_start":
            self._end = _later(event.event_time, self._generation.predicted_seconds)
        elif kind == "queue":
            start = event.queue.predicted_start_time if event.queue.HasField("predicted_start_time") else None
            self._end = None if start is None else _later(start, self._generation.predicted_seconds)
        if kind in {"attempt_start", "progress", "queue"} and self._end is not None:
            late = self._end.ToNanoseconds() < event.event_time.ToNanoseconds()
            data["predicted_end_time"] = (event.event_time if late else self._end).ToJsonString()
        if event.sequence:
            self._sequence = event.sequence
        return _event(NAMES.get(kind, kind), data, event.sequence)


async def _with_heartbeats(events: AsyncIterator[GenerationEvent]) -> AsyncIterator[GenerationEvent | None]:
    """The events, and None after each silence."""
    following = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            done, _ = await asyncio.wait([following], timeout=HEARTBEAT_SECONDS)
            if not done:
                yield None
                continue
            event = following.result()
            if event is None:
                return
            yield event
            following = asyncio.ensure_future(anext(events, None))
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError, Wan22Error):
            await following


def _done(generation: Generation) -> bytes:
    data: dict[str, Any] = {"generation": to_json(generation), "generation_url": f"/{generation.name}"}
    if generation.HasField("video"):
        data["video_url"] = f"/{generation.name}/video"
    return _event("done", data)


def _event(name: str, data: object, sequence: int = 0) -> bytes:
    number = f"id: {sequence}\n" if sequence else ""
    return f"{number}event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def _later(time: Timestamp, seconds: float) -> Timestamp:
    later = Timestamp()
    later.FromDatetime(time.ToDatetime() + timedelta(seconds=seconds))
    return later
