"""One path: finds the endpoint of a method, lets the caller in, validates, calls the handler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from pydantic import BaseModel
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from wan22.server import Guard
from wan22_gateway.http.endpoint import Call, Endpoint
from wan22_gateway.http.failure import HttpRefusal
from wan22_gateway.http.intake import Intake, check_form, check_json, check_query

ENDPOINT = "wan22.endpoint"
"""Where the scope of a request has its endpoint, for those around."""


class Resource:
    """An ASGI application for one path. Raises domain errors, which the boundary turns into answers."""

    def __init__(self, endpoints: Sequence[Endpoint], guard: Guard, intake: Intake) -> None:
        self._endpoints: Mapping[str, Endpoint] = {endpoint.method: endpoint for endpoint in endpoints}
        self._guard = guard
        self._intake = intake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        method = scope["method"]
        endpoint = self._endpoints.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            allowed = ", ".join(self._endpoints)
            text = f"{method} is no method of {scope['path'][:200]!r}: use {allowed}."
            raise HttpRefusal(405, text, {"Allow": allowed})
        scope[ENDPOINT] = endpoint
        request = Request(scope, receive)
        if endpoint.rpc is not None:
            credentials = [("authorization", value) for value in request.headers.getlist("authorization")]
            await self._guard(endpoint.rpc, credentials)
        query = check_query(request, endpoint.query)
        async with AsyncExitStack() as held:
            call = Call(request, query, None, None, held)
            if endpoint.body is not None:
                await self._take_body(call, endpoint, endpoint.body)
            response = await endpoint.handler(call)
        await response(scope, receive, send)

    async def _take_body(self, call: Call, endpoint: Endpoint, model: type[BaseModel]) -> None:
        headers = call.request.headers
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        _check_kind(kind, endpoint)
        data = await call.held.enter_async_context(self._intake.body(call.request))
        if kind == "application/json":
            call.body = check_json(data, model)
        else:
            call.body, call.files = await check_form(headers, data, model, tuple(endpoint.files))
            call.held.push_async_callback(call.files.close)


def _check_kind(kind: str, endpoint: Endpoint) -> None:
    known = ["application/json", *(["multipart/form-data"] if endpoint.files else [])]
    if kind not in known:
        raise HttpRefusal(415, f"The body's Content-Type is {kind[:80]!r}: use {' or '.join(known)}.")
