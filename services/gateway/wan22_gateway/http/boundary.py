"""Around all routes: a request's id, its line in the log, its figures, and what an error becomes."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wan22.errors import Wan22Error
from wan22.server import explained
from wan22_gateway.http.endpoint import Endpoint
from wan22_gateway.http.failure import error_response
from wan22_gateway.http.resource import ENDPOINT
from wan22_gateway.identity.caller import tenant_or

log = logging.getLogger(__name__)
SEND_SECONDS = 60.0
"""How long a caller may take to accept one piece of an answer, 1 MiB at most; then it is cut off."""
READ_OUT_BYTES, READ_OUT_SECONDS = 1 << 16, 1.0
"""Most of a body that is read, and waited for, after its request was refused."""
REQUEST_ID = re.compile(r"[0-9A-Za-z._-]{1,64}")
OPENAI_PREFIX = "/v1/"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Those that figures are kept of; a caller may send any word, of which there is no end."""

Observe = Callable[[str, str, int, float], None]
"""Is told the route, the method, the status and the seconds until the answer began."""


class Boundary:
    """An ASGI application around another one, whose errors it answers."""

    def __init__(self, app: ASGIApp, observe: Observe) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"unexpected scope {scope['type']}")
        exchange = _Exchange(scope, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except _TooSlowError:
            log.info("%s: cut off, it does not take its answer.", exchange)
        except Exception as error:  # noqa: BLE001  # the boundary: each error becomes an answer
            known = explained(error, f"{scope['method']} {exchange.route}")
            if exchange.status:  # an answer that breaks off: the connection is closed, which its length shows
                log.warning("%s: broken off: %s", exchange, known.message)
            else:
                await self._refuse(known, exchange, scope)
        finally:
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._observe(exchange.route, method, exchange.status, exchange.seconds)
            if not exchange.quiet:
                log.info("%s", exchange)

    @staticmethod
    async def _refuse(error: Wan22Error, exchange: _Exchange, scope: Scope) -> None:
        openai = scope["path"].startswith(OPENAI_PREFIX)
        response = error_response(error, exchange.id, openai=openai)
        try:
            await response(scope, exchange.receive, exchange.send)
        except _TooSlowError:
            log.info("%s: cut off, it does not take its answer.", exchange)


class _TooSlowError(Exception):
    """The caller does not take its answer."""


class _Exchange:
    """One request and how far its answer is."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        self.id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        self.status = 0
        self._scope = scope
        self._receive = receive
        self._send = send
        self._unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self._began = time.monotonic()
        self._answered: float | None = None

    @property
    def seconds(self) -> float:
        """Until the answer began."""
        return (self._answered or time.monotonic()) - self._began

    @property
    def route(self) -> str:
        """The path as it was declared; `none` for one that nobody declared, of which there is no end."""
        endpoint: Endpoint | None = self._scope.get(ENDPOINT)
        return "none" if endpoint is None else endpoint.path

    @property
    def quiet(self) -> bool:
        """Whether it is left out of the log."""
        endpoint: Endpoint | None = self._scope.get(ENDPOINT)
        return endpoint is not None and endpoint.quiet and self.status < 500

    def __str__(self) -> str:
        path = self._scope["raw_path"].decode("ascii", "replace")[:200]
        took = f"{(time.monotonic() - self._began) * 1000:.0f} ms"
        return f"{self._scope['method']} {path} {self.status} {took} tenant={tenant_or('-')} request={self.id}"

    async def receive(self) -> Message:
        """Notes the body's end."""
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._unread = False
        return message

    async def _read_out(self) -> None:
        """Reads what is left of a small body: closing upon unread bytes resets the connection, answer and all."""
        left = READ_OUT_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(READ_OUT_SECONDS):
                while self._unread and left > 0:
                    message = await self.receive()
                    if message["type"] != "http.request":
                        return
                    left -= len(message.get("body", b""))

    async def send(self, message: Message) -> None:
        """Adds the request's id. Raises when the caller does not take what it asked for."""
        if message["type"] == "http.response.start":
            await self._read_out()
            self.status = message["status"]
            self._answered = time.monotonic()
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.id
            if self._unread:
                headers["Connection"] = "close"
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._send(message)
        except TimeoutError:
            raise _TooSlowError from None
