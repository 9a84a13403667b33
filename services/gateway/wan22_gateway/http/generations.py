"""One generation by its id, what happens to it, its video; and images to start one from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from wan22.v1 import generation_pb2
from wan22.v1.generation_pb2 import Generation
from wan22_gateway.generation_servicer import GenerationServicer
from wan22_gateway.http.endpoint import Answer, Call, Endpoint, json_answer, rpc
from wan22_gateway.http.event_stream import EventStream, SentEvent
from wan22_gateway.http.message_model import answer_model, to_json
from wan22_gateway.http.model import Query
from wan22_gateway.http.video_content import ANSWERS, video_response
from wan22_gateway.watch import check_sequence

SERVICE = "GenerationService"
PATH = "/generations/{generation}"


class DeleteQuery(Query):
    """How to delete."""

    force: bool = False
    """Cancels an unfinished generation first."""


class EventsQuery(Query):
    """From where on."""

    after: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    """Only events behind this number. The header Last-Event-ID, which browsers send by themselves, says the same."""


class Generations:
    """What may be done with a generation, by its id."""

    def __init__(self, servicer: GenerationServicer, stopping: asyncio.Event) -> None:
        self._servicer = servicer
        self._stopping = stopping

    async def get(self, call: Call) -> Response:
        """As it is now."""
        return JSONResponse(to_json(await self._get(call)))

    async def cancel(self, call: Call) -> Response:
        """Asks for its end."""
        request = generation_pb2.CancelGenerationRequest(name=call.generation)
        return JSONResponse(to_json(await self._servicer.CancelGeneration(request, None)))

    async def delete(self, call: Call) -> Response:
        """Removes it with its video."""
        force = call.query_as(DeleteQuery).force
        request = generation_pb2.DeleteGenerationRequest(name=call.generation, force=force)
        await self._servicer.DeleteGeneration(request, None)
        return Response(status_code=204)

    async def events(self, call: Call) -> ASGIApp:
        """Streams what happens; who hangs up changes nothing."""
        generation = await self._get(call)
        given = call.request.headers.get("last-event-id", "")
        after = call.query_as(EventsQuery).after
        if after is None:
            after = int(given) if given.isascii() and given.isdigit() and len(given) < 19 else 0
        check_sequence(generation.name, after, generation.last_sequence)
        return EventStream(self._servicer, generation, after, self._stopping)

    async def video(self, call: Call) -> Response:
        """The MP4."""
        return await video_response(self._servicer, call.generation, call.request)

    async def recipe(self, call: Call) -> Response:
        """What the video was made of."""
        found = await self._servicer.GetRecipe(generation_pb2.GetRecipeRequest(name=call.generation), None)
        return Response(found.json, media_type="application/json")

    async def _get(self, call: Call) -> Generation:
        return await self._servicer.GetGeneration(generation_pb2.GetGenerationRequest(name=call.generation), None)


def endpoints(servicer: GenerationServicer, stopping: asyncio.Event) -> Sequence[Endpoint]:
    """/generations/{generation} and what is below it."""
    does = Generations(servicer, stopping)
    one = json_answer(answer_model(Generation.DESCRIPTOR), "The generation.")
    stream = Answer("Events, `done` last. After a break send Last-Event-ID.", {"text/event-stream": SentEvent})
    return [
        Endpoint("GET", PATH, "Returns a generation", does.get, {200: one}, rpc(SERVICE, "GetGeneration")),
        Endpoint(
            "DELETE",
            PATH,
            "Removes a generation in a final state, with its video",
            does.delete,
            {204: Answer("It is gone.")},
            rpc(SERVICE, "DeleteGeneration"),
            query=DeleteQuery,
        ),
        Endpoint(
            "POST",
            f"{PATH}/cancel",
            "Asks for a generation to stop",
            does.cancel,
            {200: one},
            rpc(SERVICE, "CancelGeneration"),
        ),
        Endpoint(
            "GET",
            f"{PATH}/events",
            "Streams a generation's events until its final state",
            does.events,
            {200: stream},
            rpc(SERVICE, "WatchGeneration"),
            query=EventsQuery,
        ),
        Endpoint(
            "GET",
            f"{PATH}/video",
            "Returns a succeeded generation's MP4",
            does.video,
            ANSWERS,
            rpc(SERVICE, "DownloadVideo"),
            refusals=(416,),
        ),
        Endpoint(
            "GET",
            f"{PATH}/recipe",
            "Returns what a succeeded generation's video was made of",
            does.recipe,
            {200: Answer("The recipe, as `wan22 replay` takes it.", {"application/json": None})},
            rpc(SERVICE, "GetRecipe"),
        ),
    ]
