"""The OpenAPI document, made from what the endpoints declare: the same models that validate."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from wan22_gateway.http.boundary import OPENAI_PREFIX
from wan22_gateway.http.endpoint import Answer, Endpoint
from wan22_gateway.http.failure import ErrorBody, OpenAIErrorBody

ERRORS = {
    400: "Something in the request is wrong; every field at fault is named.",
    401: "No credentials, or bad ones.",
    403: "The caller's key or token lacks the role.",
    404: "It is not there, or is another tenant's.",
    408: "The body did not arrive in time.",
    409: "What it is about is in a state that does not allow it, or its id is taken.",
    413: "The body is too large.",
    415: "The body has another Content-Type.",
    429: "A queue, a quota or a disk is full.",
    416: "The range lies beyond the video's end.",
    499: "The generation was cancelled.",
    504: "The generation's deadline was missed.",
    500: "A fault of the server; its log has the details by the request's id.",
    503: "Not now; the same request may succeed later.",
}
RETRY_AFTER = "Seconds after which another try makes sense."
PATH_PARAMETER = re.compile(r"{([a-z_]+)(?::[a-z]+)?}")
Mode = Literal["validation", "serialization"]


def document(endpoints: Sequence[Endpoint], *, is_open: bool) -> dict[str, Any]:
    """The whole document, OpenAPI 3.1; an open gateway asks for no credentials."""
    references, schemas = models_json_schema(list(_models(endpoints)), ref_template="#/components/schemas/{model}")
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = PATH_PARAMETER.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, references, is_open=is_open)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "wan22",
            "version": version("wan22"),
            "summary": "Videos from prompts, by the WAN2.2 models.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key (wan22_…) or an OIDC token."}
            },
        },
    }


def _models(endpoints: Sequence[Endpoint]) -> Iterator[tuple[type[BaseModel], Mode]]:
    yield ErrorBody, "serialization"
    yield OpenAIErrorBody, "serialization"
    for endpoint in endpoints:
        if endpoint.body is not None:
            yield endpoint.body, "validation"
        for answer in endpoint.answers.values():
            for model in answer.content.values():
                if model is not None:
                    yield model, "serialization"


def _operation(endpoint: Endpoint, references: Any, *, is_open: bool) -> dict[str, Any]:
    answers = {str(status): _answer(answer, references) for status, answer in endpoint.answers.items()}
    error = OpenAIErrorBody if endpoint.path.startswith(OPENAI_PREFIX) else ErrorBody
    for status in _error_statuses(endpoint):
        answers.setdefault(str(status), _error(status, references[error, "serialization"]))
    operation: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "summary": endpoint.summary,
        "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint)],
        "responses": dict(sorted(answers.items())),
        "security": [] if is_open or endpoint.rpc is None else [{"bearer": []}],
    }
    if endpoint.description:
        operation["description"] = endpoint.description
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, "content": _body(endpoint, references)}
    return operation


def _error_statuses(endpoint: Endpoint) -> Iterator[int]:
    yield 400
    yield 500
    yield from endpoint.refusals
    if endpoint.rpc is not None:
        yield from (401, 403, 429, 503)
    if "{" in endpoint.path:
        yield 404
    if endpoint.body is not None:
        yield from (404, 408, 409, 413, 415)
    elif endpoint.method != "GET" or "{" in endpoint.path:
        yield 409


def _body(endpoint: Endpoint, references: Any) -> dict[str, Any]:
    reference = references[endpoint.body, "validation"]
    content = {"application/json": {"schema": reference}}
    if endpoint.files and endpoint.body is not None:
        schema = endpoint.body.model_json_schema(ref_template="#/components/schemas/{model}")
        schema.pop("$defs", None)
        file = {"type": "string", "contentMediaType": "application/octet-stream", "description": "An image file."}
        schema["properties"] = {**schema["properties"], **dict.fromkeys(endpoint.files, file)}
        content["multipart/form-data"] = {"schema": schema}
    return content


def _answer(answer: Answer, references: Any) -> dict[str, Any]:
    content = {
        kind: {"schema": _untyped(kind) if model is None else references[model, "serialization"]}
        for kind, model in answer.content.items()
    }
    found: dict[str, Any] = {"description": answer.description}
    if content:
        found["content"] = content
    if answer.headers:
        found["headers"] = {name: _header(text) for name, text in answer.headers.items()}
    return found


def _untyped(kind: str) -> dict[str, Any]:
    return {"type": "object" if kind == "application/json" else "string"}


def _error(status: int, reference: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": ERRORS[status],
        "content": {"application/json": {"schema": reference}},
    }
    if status in {429, 503}:
        found["headers"] = {"Retry-After": {**_header(RETRY_AFTER), "schema": {"type": "integer"}, "required": True}}
    return found


def _header(text: str) -> dict[str, Any]:
    return {"description": text, "schema": {"type": "string"}}


def _operation_id(endpoint: Endpoint) -> str:
    words = re.findall(r"[a-z0-9]+", PATH_PARAMETER.sub(r"\1", endpoint.path))
    return "_".join([endpoint.method.lower(), *words])


def _path_parameters(endpoint: Endpoint) -> Iterator[dict[str, Any]]:
    for name in PATH_PARAMETER.findall(endpoint.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}


def _query_parameters(endpoint: Endpoint) -> Iterator[dict[str, Any]]:
    schema = endpoint.query.model_json_schema()
    for name, described in schema.get("properties", {}).items():
        parameter = {"name": name, "in": "query", "required": name in schema.get("required", []), "schema": described}
        text = described.pop("description", "")
        yield {**parameter, "description": text} if text else parameter
