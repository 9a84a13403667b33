"""Images of a request: named, in base64, or as files of a form; all end up as media of the caller's tenant."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

from starlette.datastructures import FormData, UploadFile

from wan22.channels import CHUNK_BYTES
from wan22.errors import InvalidRequest
from wan22.v1 import generation_pb2
from wan22_gateway.generation_servicer import GenerationServicer


async def media_of(servicer: GenerationServicer, field: str, text: str | None, files: FormData | None) -> str | None:
    """The name of an image, after its upload where it came along. Raises InvalidRequest naming the field."""
    file = None if files is None else files.get(field)
    if isinstance(file, UploadFile):
        if text is not None:
            raise InvalidRequest(f"{field} is given twice, as a file and as a text: give it once.", field=field)
        return await store(servicer, field, await file.read())
    if text is None or text.startswith("media/"):
        return text
    return await store(servicer, field, decoded(field, text))


async def store(servicer: GenerationServicer, field: str, data: bytes) -> str:
    """Uploads an image and returns its name. Raises InvalidRequest naming the field."""

    async def chunks() -> AsyncIterator[generation_pb2.UploadMediaRequest]:
        for offset in range(0, len(data), CHUNK_BYTES):
            yield generation_pb2.UploadMediaRequest(data=data[offset : offset + CHUNK_BYTES])

    try:
        return (await servicer.UploadMedia(chunks(), None)).name
    except InvalidRequest as error:
        raise InvalidRequest(error.message, field=field, reason=error.reason) from None


def decoded(field: str, text: str) -> bytes:
    """The bytes of an image in base64. Raises InvalidRequest naming the field."""
    head, comma, body = text.partition(",") if text.startswith("data:") else ("", "", text)
    if comma and not head.endswith(";base64"):
        raise InvalidRequest(f"{field} is a data URL without ;base64: send the image in base64.", field=field)
    if text.startswith(("http://", "https://")):
        raise InvalidRequest(f"{field} is an address: this gateway fetches none, send the image itself.", field=field)
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:  # binascii.Error is one, too
        what_to_do = "use media/{media}, a data URL, or the file in base64"
        raise InvalidRequest(f"{field} is neither a name nor base64 ({error}): {what_to_do}.", field=field) from None
