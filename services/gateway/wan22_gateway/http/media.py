"""/media: images to start generations from."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse, Response

from wan22.errors import InvalidRequest
from wan22_gateway.generation_servicer import GenerationServicer
from wan22_gateway.http.endpoint import Call, Endpoint, json_answer, rpc
from wan22_gateway.http.images import decoded, store
from wan22_gateway.http.model import Model


class MediaUpload(Model):
    """An image, in one of two ways."""

    image: str | None = None
    """A data URL, or the file in base64; a form has it as a file instead."""


class MediaName(Model):
    """Where the image is now."""

    name: str
    """media/{SHA-256 of the normalised PNG}, good as `image` of later requests."""


def endpoints(servicer: GenerationServicer) -> Sequence[Endpoint]:
    """/media."""

    async def upload(call: Call) -> Response:
        text = call.body_as(MediaUpload).image
        file = None if call.files is None else call.files.get("image")
        if isinstance(file, UploadFile):
            data = await file.read()
        elif text is not None:
            data = decoded("image", text)
        else:
            raise InvalidRequest("image is missing: send a file of a form, or base64.", field="image")
        return JSONResponse(MediaName(name=await store(servicer, "image", data)).model_dump(), 201)

    return [
        Endpoint(
            "POST",
            "/media",
            "Stores an image for later use as a first or last frame",
            upload,
            {201: json_answer(MediaName, "It is stored.")},
            rpc("GenerationService", "UploadMedia"),
            body=MediaUpload,
            files=("image",),
        )
    ]
