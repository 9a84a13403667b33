"""/generate: one request for one video, which waits for the MP4, streams what happens, or leaves at once."""

from __future__ import annotations

from asyncio import Event
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from pydantic import Field, create_model
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from wan22.errors import Cancelled, Unavailable
from wan22.status import from_status
from wan22.v1 import generation_pb2
from wan22.v1.generation_pb2 import Generation
from wan22_gateway.generation_servicer import GenerationServicer
from wan22_gateway.http.endpoint import Answer, Call, Endpoint, json_answer, rpc
from wan22_gateway.http.event_stream import EventStream, SentEvent
from wan22_gateway.http.hang_up import HungUp, Stopping, while_connected
from wan22_gateway.http.images import media_of
from wan22_gateway.http.message_model import answer_model, from_json, request_fields, request_model, to_json
from wan22_gateway.http.model import Model
from wan22_gateway.http.video_content import HEADERS, MP4, video_response
from wan22_gateway.request_rules import REQUEST_FIELDS

EVENTS = "text/event-stream"
IMAGES = ("image", "last_image")
OF_PARAMETERS = frozenset({"prompt", *IMAGES})
"""Parameters that stand beside `parameters`, not in it."""
SamplingParameters = request_model(generation_pb2.Parameters.DESCRIPTOR, OF_PARAMETERS)
CREATE = generation_pb2.CreateGenerationRequest.DESCRIPTOR
FINAL = frozenset({Generation.SUCCEEDED, Generation.FAILED, Generation.CANCELLED})


class _Wanted(Model):
    variant: str = Field(examples=["t2v-a14b"])
    """Which model: one that /models lists."""
    prompt: str = Field(examples=["A cat on a surfboard, at sunset"])
    """What to show."""
    parameters: SamplingParameters | None = None  # type: ignore[valid-type]  # made from the message at run time
    """Everything else that decides the content; what is absent takes the variant's default."""
    image: str | None = None
    """The first frame: media/{media}, a data URL, or the file in base64. A form may have it as a file instead."""
    last_image: str | None = None
    """The last frame, likewise."""
    detach: bool = False
    """Answers 202 at once. Without it a caller that hangs up cancels the generation."""


_beside = {
    **request_fields(Generation.DESCRIPTOR, frozenset(Generation.DESCRIPTOR.fields_by_name) - REQUEST_FIELDS),
    **request_fields(CREATE, frozenset({"generation", "count"})),
}
WantedVideo: type[_Wanted] = create_model(
    "WantedVideo",
    __base__=_Wanted,
    **{name: field for name, field in _beside.items() if name not in {"variant", "parameters"}},
)
"""The body: what CreateGeneration takes, flat."""


class Generate:
    """Makes generations and stays with their callers."""

    def __init__(self, servicer: GenerationServicer, stopping: Event) -> None:
        self._servicer = servicer
        self._stopping = stopping
        self._waiting: Counter[str] = Counter()
        """Callers that wait, by generation: a repeated request id lets several wait for one."""

    async def __call__(self, call: Call) -> Response | ASGIApp:
        """Accepts, then answers as the caller asked."""
        wanted = call.body_as(WantedVideo)
        request = await self._request(wanted, call)
        await call.drop_body()
        generation = await self._servicer.CreateGeneration(request, None)
        if wanted.detach:
            return JSONResponse(to_json(generation), 202, {"Location": f"/{generation.name}"})
        self._waiting[generation.name] += 1
        if EVENTS in call.request.headers.get("accept", ""):
            left = partial(self._left, generation.name)
            return EventStream(self._servicer, generation, 0, self._stopping, left)
        return await self._video(generation, call)

    async def _request(self, wanted: _Wanted, call: Call) -> generation_pb2.CreateGenerationRequest:
        given: dict[str, Any] = wanted.model_dump(exclude_none=True, exclude={"detach", *IMAGES})
        parameters = {**given.pop("parameters", {}), "prompt": given.pop("prompt")}
        for field in IMAGES:
            name = await media_of(self._servicer, field, getattr(wanted, field), call.files)
            if name is not None:
                parameters[field] = name
        generation = {name: given.pop(name) for name in REQUEST_FIELDS & given.keys()}
        whole = {**given, "generation": {**generation, "parameters": parameters}}
        return from_json(whole, generation_pb2.CreateGenerationRequest())

    async def _video(self, generation: Generation, call: Call) -> Response:
        name, hung_up = generation.name, False
        try:
            change = await while_connected(self._final(generation), call.request.receive, self._stopping)
        except HungUp:
            hung_up = True
            return Response(status_code=499)
        except Stopping:
            text = f"This gateway stops; {name} goes on: look at /{name} from the next one."
            raise Unavailable(text, metadata={"generation": name}, retry_after=5) from None
        finally:
            await self._left(name, hung_up)
        if change.state == Generation.SUCCEEDED:
            return await video_response(self._servicer, name, call.request)
        if change.HasField("error"):
            error = from_status(change.error)
            error.metadata = {**error.metadata, "generation": name}
            raise error
        raise Cancelled(f"{name} was cancelled.", metadata={"generation": name})

    async def _final(self, generation: Generation) -> generation_pb2.StateChange:
        """The change into the final state."""
        request = generation_pb2.WatchGenerationRequest(name=generation.name)
        final = generation_pb2.StateChange()
        async for event in self._servicer.WatchGeneration(request, None):
            if event.state_change.state in FINAL:
                final = event.state_change
        return final

    async def _left(self, name: str, hung_up: bool) -> None:  # noqa: FBT001  # as EventStream calls it
        """Cancels what the last of those who waited has hung up on."""
        self._waiting[name] -= 1
        if self._waiting[name] <= 0:
            del self._waiting[name]
        if hung_up and name not in self._waiting:
            await self._servicer.CancelGeneration(generation_pb2.CancelGenerationRequest(name=name), None)


def endpoints(servicer: GenerationServicer, stopping: Event) -> Sequence[Endpoint]:
    """/generate."""
    answered = answer_model(Generation.DESCRIPTOR)
    return [
        Endpoint(
            method="POST",
            path="/generate",
            summary="Makes a video",
            description="Waits and returns the MP4. With `Accept: text/event-stream` it streams what happens, `done` "
            "last; with `detach` it returns the generation at once.",
            handler=Generate(servicer, stopping).__call__,
            body=WantedVideo,
            files=IMAGES,
            answers={
                200: Answer("The MP4, or the events.", {MP4: None, EVENTS: SentEvent}, HEADERS),
                202: json_answer(answered, "Accepted; it is durable.", Location="Where it is: /generations/{uuid}."),
            },
            rpc=rpc("GenerationService", "CreateGeneration"),
            refusals=(499, 504),
        )
    ]
