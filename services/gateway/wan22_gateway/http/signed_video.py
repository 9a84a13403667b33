"""A video by a signed URL, for whoever has it: the signature stands for the tenant that had it made."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from starlette.responses import Response

from wan22_gateway.download_urls import DownloadUrls
from wan22_gateway.generation_servicer import GenerationServicer
from wan22_gateway.http.endpoint import Call, Endpoint
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
    """/videos."""

    async def video(call: Call) -> Response:
        signed = call.query_as(Signed)
        generation = call.request.path_params["generation"]
        row = await urls.open(generation, signed.expires, signed.signature)
        is_called_by(Caller(row.tenant, frozenset({USER})))
        return await video_response(servicer, f"generations/{row.id}", call.request)

    return [
        Endpoint(
            method="GET",
            path="/videos/{generation}.mp4",
            summary="The video of a URL that CreateDownloadUrl has made",
            description="Takes no credentials. A URL that was changed, or whose time or video is gone, is 404.",
            handler=video,
            answers=ANSWERS,
            rpc=None,
            query=Signed,
        )
    ]
