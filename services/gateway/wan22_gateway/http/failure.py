"""Errors as HTTP has them: which status each code has, and what the body says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field
from starlette.responses import JSONResponse, Response

from wan22.errors import Code, InvalidRequest, Reason, Wan22Error
from wan22.status import to_status
from wan22_gateway.http.model import Model

STATUS: Mapping[Code, int] = {
    Code.CANCELLED: 499,  # nginx's "client closed request"; the generation was cancelled
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 409,  # google.rpc says 400, but nothing is wrong with the request itself
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
"""The one table of codes and HTTP statuses."""
RETRIED = frozenset({429, 503})
RETRY_SECONDS = 10
"""Retry-After of an error that names no time of its own: a quota of a day, a disk that somebody has to clear."""


REFUSALS: Mapping[int, Code] = {
    404: Code.NOT_FOUND,
    405: Code.UNIMPLEMENTED,
    408: Code.DEADLINE_EXCEEDED,
    413: Code.INVALID_ARGUMENT,
    415: Code.INVALID_ARGUMENT,
    416: Code.OUT_OF_RANGE,
}
"""Statuses by which HTTP itself refuses a request, and the code that comes closest."""


class HttpRefusal(Wan22Error):
    """A request that HTTP itself refuses, before any rule of ours: it has a status of its own."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = REFUSALS[status]
        self.status = status
        self.headers = dict(headers or {})


class FieldViolation(Model):
    """One field that is wrong, and how to put it right."""

    field: str = Field(examples=["parameters.num_frames"])
    description: str = Field(examples=["num_frames is 80: use 4n + 1 in [1, 161], such as 77 or 81."])


class Problem(Model):
    """What went wrong."""

    code: str = Field(examples=["INVALID_ARGUMENT"])
    """A canonical code of google.rpc, by name."""
    message: str
    """What is wrong, the value given, and what to do."""
    reason: str = Field(examples=["INVALID_PARAMETERS"])
    """For programs; UNSPECIFIED where the code says enough."""
    violations: list[FieldViolation]
    """Every field that is wrong; empty where no field is."""
    metadata: dict[str, str]
    """More for programs, by reason."""
    request_id: str
    """As in the header X-Request-Id, and in the gateway's log."""


class ErrorBody(Model):
    """The body of every answer that is an error."""

    error: Problem


class OpenAIProblem(Model):
    """What went wrong, in the shape of OpenAI's API."""

    message: str
    type: str = Field(examples=["invalid_request_error"])
    param: str | None
    """The first field that is wrong."""
    code: str | None = Field(examples=["invalid_parameters"])


class OpenAIErrorBody(Model):
    """The body of every answer under /v1 that is an error."""

    error: OpenAIProblem


OPENAI_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    409: "conflict_error",
    429: "rate_limit_error",
}
OPENAI_FIELDS: Mapping[str, str] = {
    "variant": "model",
    "parameters.num_frames": "seconds",
    "parameters.width": "size",
    "parameters.height": "size",
    "parameters.image": "input_reference",
}
FIELDS = {"data": "image"}
"""Fields of messages that a caller over HTTP knows by another name."""


def status_of(error: Wan22Error) -> int:
    """The HTTP status of an error."""
    return error.status if isinstance(error, HttpRefusal) else STATUS[error.code]


def error_response(error: Wan22Error, request_id: str, *, openai: bool) -> Response:
    """The whole answer."""
    status = status_of(error)
    headers = dict(error.headers) if isinstance(error, HttpRefusal) else {}
    if status in RETRIED:
        headers["Retry-After"] = str(math.ceil(error.retry_after or RETRY_SECONDS))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = _openai(error, status) if openai else ErrorBody(error=problem(error, request_id)).model_dump()
    return JSONResponse(body, status, headers)


def problem(error: Wan22Error, request_id: str) -> Problem:
    """An error in our own shape."""
    violations = [
        FieldViolation(field=_field(violation.field), description=violation.description)
        for violation in (error.violations if isinstance(error, InvalidRequest) else ())
    ]
    return Problem(
        code=error.code.name,
        message=to_status(error).message,
        reason=error.reason.value,
        violations=violations,
        metadata=error.metadata,
        request_id=request_id,
    )


def _openai(error: Wan22Error, status: int) -> dict[str, Any]:
    violations = error.violations if isinstance(error, InvalidRequest) else ()
    kind = OPENAI_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    code = error.code.name if error.reason is Reason.UNSPECIFIED else error.reason.value
    field = _field(violations[0].field) if violations else None
    param = None if field is None else OPENAI_FIELDS.get(field, field.removeprefix("parameters."))
    found = OpenAIProblem(message=to_status(error).message, type=kind, param=param, code=code.lower())
    return OpenAIErrorBody(error=found).model_dump()


def _field(field: str) -> str:
    """A field as the body of a request over HTTP has it."""
    field = field.removeprefix("generation.")
    return FIELDS.get(field, field)
