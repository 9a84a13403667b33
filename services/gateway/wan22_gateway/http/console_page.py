"""The console: a page that asks for videos and plays them, by the same API as everybody else."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from starlette.responses import Response

from wan22_gateway.http.endpoint import Answer, Call, Endpoint, Handler

FILES = {
    "/": ("index.html", "text/html"),
    "/console.css": ("console.css", "text/css"),
    "/console.js": ("console.js", "text/javascript"),
}
"""By path: the file in the folder `console`, and its type."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; media-src blob:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""Previews are in data URLs; a video is fetched with the caller's key, and then played from memory."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def endpoints() -> Sequence[Endpoint]:
    """The page and what it loads. Open to all: it says nothing, and what it asks for takes the caller's key."""
    return [
        Endpoint(
            method="GET",
            path=path,
            summary=f"The console: {name}",
            handler=_handler(name, media_type),
            answers={200: Answer("The file.", {media_type: None})},
            rpc=None,
            quiet=True,
        )
        for path, (name, media_type) in FILES.items()
    ]


def _handler(name: str, media_type: str) -> Handler:
    content = files("wan22_gateway.http").joinpath("console", name).read_bytes()

    async def answer(_call: Call) -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return answer
