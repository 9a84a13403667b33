"""An HTTP client that leaves no connection open whose making was given up."""

from __future__ import annotations

from typing import Any

import httpx


class HttpClient(httpx.AsyncClient):
    """httpx's, whose calls can be cancelled at any moment.

    httpcore closes a connection that fails during its TLS handshake, but not one whose caller is cancelled meanwhile.
    """

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """See httpx.AsyncClient."""
        unfinished: list[Any] = []

        async def trace(event: str, info: dict[str, Any]) -> None:
            if event.endswith("connect_tcp.complete"):
                unfinished.append(info["return_value"])
            elif event.endswith("start_tls.complete"):
                unfinished.clear()

        request.extensions["trace"] = trace
        try:
            return await super().send(request, **options)
        except BaseException:
            for stream in unfinished:
                await stream.aclose()
            raise
