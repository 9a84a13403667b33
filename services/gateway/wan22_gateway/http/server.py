"""The HTTP server: uvicorn in the gateway's own loop, which tells those it cuts off when it stops."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import uvicorn
from starlette.types import ASGIApp

from wan22.errors import FailedPrecondition, Reason
from wan22_gateway.http.connection import Connection

log = logging.getLogger(__name__)
BACKLOG = 2048
"""Connections that wait to be accepted: a thousand watchers come back at once when a gateway has restarted."""
KEEP_ALIVE_SECONDS = 30
"""How long an idle connection stays open."""
STOP_SECONDS = 2
"""How long answers under way may take when stopping; a download that is cut goes on by Range."""


class HttpServer:
    """Serves an application while its context lasts; `port` is the bound port (a given port 0 picks a free one).

    `stopping` is set first when it stops, and what is open then ends by itself. Raises FailedPrecondition (BAD_SETTING)
    for a port that is taken.
    """

    def __init__(
        self, app: ASGIApp, *, host: str, port: int, stopping: asyncio.Event, tls: ssl.SSLContext | None
    ) -> None:
        self._stopping = stopping
        self._socket = _bind(host, port)
        self.port: int = self._socket.getsockname()[1]
        scheme = "http" if tls is None else "https"
        self.address = f"{scheme}://{host}:{self.port}"
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="off",
                interface="asgi3",
                proxy_headers=False,
                server_header=False,
                access_log=False,
                log_config=None,
                log_level="warning",
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=STOP_SECONDS,
                ssl_context_factory=None if tls is None else lambda *_: tls,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        up = asyncio.create_task(self._server.up.wait())
        await asyncio.wait([self._task, up], return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.should_exit = True
        try:
            if self._task is not None:
                await self._task
        finally:
            self._socket.close()


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextmanager
    def capture_signals(self) -> Iterator[Any]:
        yield


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off where a socket's protocol is named alone; else an answer's second write, its
    # body, waits for the receiver's delayed acknowledgement, 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host.strip("[]"), port))
    except OSError as error:
        listening.close()
        text = f"HTTP port {port} of {host} cannot be listened on ({os.strerror(error.errno or 0)}): choose another."
        raise FailedPrecondition(text, reason=Reason.BAD_SETTING) from error
    return listening
