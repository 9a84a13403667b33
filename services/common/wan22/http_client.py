"""An HTTP client that leaves no connection open whose making, or whose end, was given up."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import anyio
import httpx


class HttpClient(httpx.AsyncClient):
    """httpx's, whose calls can be cancelled at any moment.

    httpcore guards what it must end, such as the closing of idle connections before a call, from anyio's cancellation
    and not from asyncio's: so each call has a task of its own, whose scope is cancelled in its caller's stead. And it
    closes a connection that fails during its TLS handshake, but not one whose caller is cancelled meanwhile.
    """

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """See httpx.AsyncClient."""
        scope = anyio.CancelScope()

        async def call() -> httpx.Response | None:
            with scope:
                return await self._send_and_clean_up(request, options)
            return None

        calling = asyncio.create_task(call())
        try:
            answer = await asyncio.shield(calling)
        except asyncio.CancelledError:
            scope.cancel()
            while not calling.done():
                with suppress(asyncio.CancelledError, Exception):  # the caller is told of its first cancellation
                    await asyncio.shield(calling)
            if not calling.cancelled() and calling.exception() is None and (late := calling.result()) is not None:
                await late.aclose()
            raise
        if answer is None:
            raise RuntimeError("a call's scope was cancelled, and its caller was not")
        return answer

    async def _send_and_clean_up(self, request: httpx.Request, options: dict[str, Any]) -> httpx.Response:
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
            with anyio.CancelScope(shield=True):
                for stream in unfinished:
                    await stream.aclose()
            raise
