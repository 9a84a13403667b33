"""The application: every endpoint there is, by path, and the document that describes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from wan22.server import Guard
from wan22_gateway.http.boundary import Boundary, Observe
from wan22_gateway.http.endpoint import Answer, Call, Endpoint
from wan22_gateway.http.failure import HttpRefusal
from wan22_gateway.http.intake import Intake
from wan22_gateway.http.openapi import document
from wan22_gateway.http.resource import Resource


def application(endpoints: Sequence[Endpoint], guard: Guard, observe: Observe, *, is_open: bool) -> ASGIApp:
    """Everything behind the port; `guard` is asked before each endpoint that stands for an RPC.

    `is_open` says that it lets everybody in, and so does the document then.
    """
    described = document(endpoints, is_open=is_open)

    async def openapi(_call: Call) -> Response:
        return JSONResponse(described)

    whole = [
        *endpoints,
        Endpoint(
            method="GET",
            path="/openapi.json",
            summary="This API as an OpenAPI document",
            handler=openapi,
            answers={200: Answer("The document.", {"application/json": None})},
            rpc=None,
        ),
    ]
    by_path: defaultdict[str, list[Endpoint]] = defaultdict(list)
    for endpoint in whole:
        by_path[endpoint.path].append(endpoint)
    intake = Intake()
    routes = [Route(path, Resource(found, guard, intake)) for path, found in by_path.items()]
    return Boundary(Router(routes, redirect_slashes=False, default=_not_here), observe)


async def _not_here(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001  # an ASGI application
    raise HttpRefusal(404, f"{scope['path'][:200]!r} is not here: /openapi.json lists what is.")
