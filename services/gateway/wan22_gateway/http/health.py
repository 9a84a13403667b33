"""Whether the gateway lives, and whether it serves: for load balancers and people. kubelet asks grpc.health.v1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from starlette.responses import JSONResponse, Response

from wan22_gateway.http.endpoint import Call, Endpoint, json_answer
from wan22_gateway.http.model import Model

HANGS = "The event loop, which does all the work, has not turned for 10 s."


class Health(Model):
    """How it is."""

    state: Literal["live", "not live", "ready", "not ready"]
    reason: str | None = None
    """Why it is not."""


def endpoints(live: Callable[[], bool], ready: Callable[[], bool], reason: Callable[[], str]) -> Sequence[Endpoint]:
    """/health and /ready. Neither touches the store; `reason` tells why the gateway is not `ready`."""

    async def health(_call: Call) -> Response:
        return _answer(live(), "live", HANGS)

    async def readiness(_call: Call) -> Response:
        return _answer(live() and ready(), "ready", reason() if live() else HANGS)

    return [
        Endpoint(
            method="GET",
            path="/health",
            summary="Whether the gateway lives",
            description="Answered by the loop that does all its work: an answer is the proof.",
            handler=health,
            answers={200: json_answer(Health, "It lives."), 503: json_answer(Health, "It hangs.")},
            rpc=None,
            quiet=True,
        ),
        Endpoint(
            method="GET",
            path="/ready",
            summary="Whether the gateway serves",
            description="It does while its store answers, which it asks every 2 s.",
            handler=readiness,
            answers={200: json_answer(Health, "It serves."), 503: json_answer(Health, "Not yet, or no longer.")},
            rpc=None,
            quiet=True,
        ),
    ]


def _answer(well: bool, word: Literal["live", "ready"], reason: str) -> Response:  # noqa: FBT001
    health = Health.model_validate({"state": word} if well else {"state": f"not {word}", "reason": reason})
    content = health.model_dump(exclude_none=True)
    return JSONResponse(content, 200 if well else 503, None if well else {"Retry-After": "1"})
