"""Signed URLs of videos: made for who may have the video, and then good for whoever has the URL."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from starlette.responses import JSONResponse, Response

from wan22.v1 import generation_pb2
from wan22_gateway.download_urls import DownloadUrls
from wan22_gateway.generation_servicer import GenerationServicer
from wan22_gateway.http.endpoint import Call, Endpoint, json_answer, rpc
from wan22_gateway.http.message_model import answer_model, from_json, request_model, to_json
from wan22_gateway.http.model import Query
from wan22_gateway.http.video_content import ANSWERS, video_response
from wan22_gateway.identity.caller import USER, Caller, is_called_by


class Signed(Query):
    """What CreateDownloadUrl has put there."""

    expires: str = Field(examples=["1767225600000000"])
    """From when on the URL is refused, microseconds since 1970."""
    signature: str
    """Over the end, the video and its tenant."""


def endpoints(urls: DownloadUrls, servicer: GenerationServicer) -> Sequence[Endpoint]:
    """/generations/{generation}/download_url, and /videos, to which it leads where videos are in a folder."""
    wanted = request_model(generation_pb2.CreateDownloadUrlRequest.DESCRIPTOR, frozenset({"name"}))

    async def make(call: Call) -> Response:
        given = {"name": call.generation, **call.body_as(wanted).model_dump(exclude_none=True)}
        request = from_json(given, generation_pb2.CreateDownloadUrlRequest())
        return JSONResponse(to_json(await servicer.CreateDownloadUrl(request, None)))

    async def video(call: Call) -> Response:
        signed = call.query_as(Signed)
        generation = call.request.path_params["generation"]
        row = await urls.open(generation, signed.expires, signed.signature)
        is_called_by(Caller(row.tenant, frozenset({USER})))
        return await video_response(servicer, f"generations/{row.id}", call.request)

    return [
        Endpoint(
            method="POST",
            path="/generations/{generation}/download_url",
            summary="Makes a URL by which anybody can fetch a succeeded generation's MP4 for at most an hour",
            handler=make,
            answers={200: json_answer(answer_model(generation_pb2.DownloadUrl.DESCRIPTOR), "The URL.")},
            rpc=rpc("GenerationService", "CreateDownloadUrl"),
            body=wanted,
        ),
        Endpoint(
            method="GET",
            path="/videos/{generation}.mp4",
            summary="The video of a URL that CreateDownloadUrl has made",
            description="Takes no credentials. A URL that was changed, or whose time or video is gone, is 404.",
            handler=video,
            answers=ANSWERS,
            rpc=None,
            query=Signed,
            refusals=(416,),
        ),
    ]
