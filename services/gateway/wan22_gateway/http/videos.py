"""/v1/videos: generations for OpenAI's clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from starlette.responses import JSONResponse, Response

from wan22.errors import InvalidRequest
from wan22.v1 import generation_pb2
from wan22.v1.generation_pb2 import Generation
from wan22.variants import VARIANTS
from wan22_gateway.generation_messages import generation_message
from wan22_gateway.generation_servicer import GenerationServicer
from wan22_gateway.http.endpoint import Call, Endpoint, json_answer, rpc
from wan22_gateway.http.images import media_of
from wan22_gateway.http.model import Model, Query
from wan22_gateway.http.openai_video import VideoJob, frames_of, size_of, video_job
from wan22_gateway.http.video_content import ANSWERS, video_response
from wan22_gateway.identity.caller import caller
from wan22_gateway.store import generations
from wan22_gateway.store.database import Database, Transaction

SERVICE = "GenerationService"
PATH = "/v1/videos"
ONE = f"{PATH}/{{generation}}"
IMAGE = "input_reference"


class ImageReference(Model):
    """An image; one of the two."""

    image_url: str | None = None
    """A data URL. Addresses are not fetched."""
    file_id: str | None = None
    """media/{media}, as POST /media returned it."""


class CreateVideo(Model):
    """What OpenAI's client sends."""

    model: str = Field(examples=["t2v-a14b"])
    """The variant: one that /models lists."""
    prompt: str
    """What to show."""
    seconds: str | int | float | None = Field(None, examples=["5"])
    """From the first frame to the last one, which are seconds * fps + 1 frames: a multiple of 4 / fps of the variant.
    Its default length when absent."""
    size: str | None = Field(None, examples=["1280x720"])
    """WIDTHxHEIGHT, pixels; the variant's default when absent, or the image's aspect."""
    input_reference: ImageReference | None = None
    """The first frame; a form has it as a file."""


class ListQuery(Query):
    """Which page."""

    after: str | None = None
    """The id of the last job of the page before."""
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    """Most jobs of a page."""
    order: Literal["asc", "desc"] = "desc"
    """Oldest or newest first."""


class ContentQuery(Query):
    """Which file."""

    variant: Literal["video"] = "video"
    """Thumbnails and sprite sheets are not made here."""


class VideoList(Model):
    """A page of jobs."""

    object: Literal["list"]
    data: list[VideoJob]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VideoDeleted(Model):
    """A job that is gone."""

    id: str
    object: Literal["video.deleted"]
    deleted: Literal[True]


class Videos:
    """OpenAI's calls, by ours."""

    def __init__(self, servicer: GenerationServicer, database: Database) -> None:
        self._servicer = servicer
        self._database = database

    async def create(self, call: Call) -> Response:
        """Accepts a job."""
        asked = call.body_as(CreateVideo)
        wanted = Generation(variant=asked.model)
        wanted.parameters.prompt = asked.prompt
        variant = VARIANTS.get(asked.model)
        if asked.seconds is not None and variant is not None:
            wanted.parameters.num_frames = frames_of(asked.seconds, variant.fps)
        if asked.size is not None:
            wanted.parameters.width, wanted.parameters.height = size_of(asked.size)
        image = await media_of(self._servicer, IMAGE, _reference(asked.input_reference), call.files)
        if image is not None:
            wanted.parameters.image = image
        await call.drop_body()
        request = generation_pb2.CreateGenerationRequest(generation=wanted)
        return _job(await self._servicer.CreateGeneration(request, None))

    async def get(self, call: Call) -> Response:
        """One job as it is now."""
        request = generation_pb2.GetGenerationRequest(name=call.generation)
        return _job(await self._servicer.GetGeneration(request, None))

    async def delete(self, call: Call) -> Response:
        """Removes a job that has ended."""
        await self._servicer.DeleteGeneration(generation_pb2.DeleteGenerationRequest(name=call.generation), None)
        identity = call.generation.removeprefix("generations/")
        return JSONResponse(VideoDeleted(id=identity, object="video.deleted", deleted=True).model_dump())

    async def content(self, call: Call) -> Response:
        """The MP4."""
        return await video_response(self._servicer, call.generation, call.request)

    async def page(self, call: Call) -> Response:
        """A page of the tenant's jobs."""
        tenant, query = caller().tenant, call.query_as(ListQuery)

        def read(tx: Transaction) -> list[Generation]:
            behind = None if query.after is None else generations.get(tx, tenant, query.after).position
            rows = generations.page(
                tx,
                tenant,
                states=(),
                variant="",
                wanted_labels={},
                before=behind,
                limit=query.limit + 1,
                oldest_first=query.order == "asc",
            )
            return [generation_message(tx, row) for row in rows]

        found = [video_job(generation) for generation in await self._database.read(read)]
        jobs = found[: query.limit]
        page = VideoList(
            object="list",
            data=jobs,
            first_id=jobs[0].id if jobs else None,
            last_id=jobs[-1].id if jobs else None,
            has_more=len(found) > len(jobs),
        )
        return JSONResponse(page.model_dump())


def endpoints(servicer: GenerationServicer, database: Database) -> Sequence[Endpoint]:
    """/v1/videos and what is below it."""
    does = Videos(servicer, database)
    job = json_answer(VideoJob, "The job.")
    return [
        Endpoint(
            "POST",
            PATH,
            "Creates a video job",
            does.create,
            {200: job},
            rpc(SERVICE, "CreateGeneration"),
            body=CreateVideo,
            files=(IMAGE,),
        ),
        Endpoint(
            "GET",
            PATH,
            "Lists video jobs",
            does.page,
            {200: json_answer(VideoList, "A page.")},
            rpc(SERVICE, "ListGenerations"),
            query=ListQuery,
            refusals=(404,),
        ),
        Endpoint("GET", ONE, "Returns a video job", does.get, {200: job}, rpc(SERVICE, "GetGeneration")),
        Endpoint(
            "DELETE",
            ONE,
            "Removes a video job that has ended",
            does.delete,
            {200: json_answer(VideoDeleted, "It is gone.")},
            rpc(SERVICE, "DeleteGeneration"),
        ),
        Endpoint(
            "GET",
            f"{ONE}/content",
            "Returns a completed job's MP4",
            does.content,
            ANSWERS,
            rpc(SERVICE, "DownloadVideo"),
            query=ContentQuery,
            refusals=(416,),
        ),
    ]


def _job(generation: Generation) -> Response:
    return JSONResponse(video_job(generation).model_dump())


def _reference(given: ImageReference | None) -> str | None:
    if given is None:
        return None
    if (given.image_url is None) == (given.file_id is None):
        raise InvalidRequest(f"{IMAGE} has both image_url and file_id, or neither: give one.", field=IMAGE)
    return given.image_url or given.file_id
