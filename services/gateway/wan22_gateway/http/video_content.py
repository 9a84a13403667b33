"""A video as HTTP serves files: with length, digests, ranges and conditions (RFC 9110, RFC 9530)."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Mapping

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from wan22.errors import InternalError
from wan22.v1 import generation_pb2
from wan22_gateway.generation_servicer import GenerationServicer
from wan22_gateway.http.endpoint import Answer
from wan22_gateway.http.failure import HttpRefusal

MP4 = "video/mp4"
HEADERS: Mapping[str, str] = {
    "ETag": "The SHA-256 of the MP4, hex, in quotes.",
    "Repr-Digest": "The SHA-256 of the MP4, by RFC 9530.",
    "Wan22-Generation": "Whose video it is: generations/{uuid}.",
}
ANSWERS: Mapping[int, Answer] = {
    200: Answer("The MP4.", {MP4: None}, HEADERS),
    206: Answer("The part that Range asks for.", {MP4: None}, {**HEADERS, "Content-Range": "Which part."}),
    304: Answer("The caller has it: If-None-Match names its ETag.", {}, HEADERS),
}
RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)


async def video_response(servicer: GenerationServicer, name: str, request: Request) -> Response:
    """The video of a generation, or the part that the request asks for. Raises what DownloadVideo raises."""
    generation = await servicer.GetGeneration(generation_pb2.GetGenerationRequest(name=name), None)
    video = generation.video
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private",
        "Content-Disposition": f'inline; filename="{name.removeprefix("generations/")}.mp4"',
        "ETag": f'"{video.digest.removeprefix("sha256:")}"',
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(video.digest.removeprefix('sha256:'))).decode()}:",
        "Wan22-Generation": name,
    }
    part = _wanted(request, headers["ETag"], video.size_bytes)
    known = _is_known(request, headers["ETag"])
    offset = video.size_bytes if known or request.method == "HEAD" else part.start
    chunks = servicer.DownloadVideo(generation_pb2.DownloadVideoRequest(name=name, offset=offset), None)
    first = await anext(chunks, None)  # what is wrong is raised before the answer begins
    if not generation.HasField("video"):
        raise InternalError(f"{name} has a video that GetGeneration does not know.")
    if known:
        return Response(status_code=304, headers=headers)
    headers["Content-Length"] = str(len(part))
    if len(part) < video.size_bytes:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{video.size_bytes}"
    status = 200 if len(part) == video.size_bytes else 206
    return StreamingResponse(_cut(first, chunks, part), status, headers, MP4)


async def _cut(
    first: generation_pb2.VideoChunk | None, chunks: AsyncIterator[generation_pb2.VideoChunk], part: range
) -> AsyncIterator[bytes]:
    """The bytes of a part; the chunks begin where it does."""
    left = len(part)
    chunk = first
    while chunk is not None and left:
        data = chunk.data[:left]
        left -= len(data)
        yield data
        chunk = await anext(chunks, None) if left else None


def _is_known(request: Request, etag: str) -> bool:
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return "*" in known or etag in known


def _wanted(request: Request, etag: str, size: int) -> range:
    """The bytes to send: all of them unless there is one good range. Raises HttpRefusal (416)."""
    whole = range(size)
    match = RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if match is None or request.headers.get("if-range", etag) != etag:
        return whole
    first, last = (int(digits[:18]) if digits else None for digits in match.groups())
    if (first is None and last is None) or (first is not None and last is not None and last < first):
        return whole
    if first is None:
        part = range(max(0, size - (last or 0)), size)
    else:
        part = range(first, size if last is None else min(last + 1, size))
    if not part:
        text = f"Range is {request.headers['range'][:80]!r}: the video has {size} bytes."
        raise HttpRefusal(416, text, {"Content-Range": f"bytes */{size}"})
    return part
