"""What comes in: queries and bodies, within limits of size and time, validated by the endpoint's models."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import Receive

from wan22.errors import InvalidRequest, Violation
from wan22_gateway.arriving import SMALL_BYTES, Arrivals, TooLarge, TooSlow
from wan22_gateway.http.failure import HttpRefusal

MAX_BYTES = 64 << 20
"""Most bytes of a body: one image of 32 MiB in base64, or two as parts of a form."""
INPUT_CHARACTERS = 80
INSIDE = re.compile(r"(\w+)\[(\w+)\]", re.ASCII)


class Intake:
    """Reads bodies, a few large ones at a time."""

    def __init__(self) -> None:
        self._arrivals = Arrivals(MAX_BYTES)

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body; the context lasts while anything of it is held. Raises HttpRefusal (408, 413)."""
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > MAX_BYTES:
            raise _too_large()
        try:
            async with self._arrivals.whole(_pieces(request.receive)) as data:
                yield data
        except TooLarge:
            raise _too_large() from None
        except TooSlow as error:
            raise HttpRefusal(408, f"The body did not arrive {error}. Send it anew.") from None


def check_query(request: Request, model: type[BaseModel]) -> BaseModel:
    """The validated query. Raises InvalidRequest for unknown names, and for those that come twice."""
    items = request.query_params.multi_items()
    given = dict(items)
    twice = sorted({name for name, _ in items if sum(name == other for other, _ in items) > 1})
    if twice:
        raise InvalidRequest(f"{twice[0]} is given more than once: give it once.", field=twice[0])
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise invalid(error) from None


def check_json(body: bytes, model: type[BaseModel]) -> BaseModel:
    """The validated JSON body. Raises InvalidRequest naming every field that is wrong."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error) from None


async def check_form(
    headers: Headers, body: bytes, model: type[BaseModel], files: tuple[str, ...]
) -> tuple[BaseModel, FormData]:
    """The validated parts of a multipart body, and its files, which are open. Raises InvalidRequest.

    Fields that are no text (objects, numbers, booleans) are JSON; `a[b]` is the field b of an object a.
    """

    async def whole() -> AsyncGenerator[bytes]:
        yield body

    try:
        form = await MultiPartParser(headers, whole(), max_files=len(files), max_part_size=SMALL_BYTES).parse()
    except MultiPartException as error:
        raise InvalidRequest(f"The multipart body cannot be read: {error.message}") from None
    try:
        return _checked(form, model, files), FormData([item for item in form.multi_items() if item[0] in files])
    except InvalidRequest:
        await form.close()
        raise


def _checked(form: FormData, model: type[BaseModel], files: tuple[str, ...]) -> BaseModel:
    uploads = {name for name, part in form.multi_items() if isinstance(part, UploadFile)}
    unknown = sorted(uploads - set(files))
    if unknown:
        raise InvalidRequest(f"{unknown[0]} is a file, but no file has that name here.", field=unknown[0])
    texts = {name: part for name, part in form.multi_items() if isinstance(part, str)}
    if len(texts) + len(uploads) < len(form.multi_items()):
        raise InvalidRequest("A part of the form is given more than once: give it once.")
    try:
        return model.model_validate(_fields(texts, model.model_json_schema()["properties"]))
    except ValidationError as error:
        raise invalid(error) from None
    except ValueError as error:
        raise InvalidRequest(f"A part of the form that is no text must be JSON: {error}.") from None


def invalid(error: ValidationError) -> InvalidRequest:
    """All that is wrong with what came, as an error of ours."""
    violations = []
    for found in error.errors(include_url=False, include_context=False):
        field = ".".join(str(part) for part in found["loc"] if isinstance(part, int | str)) or "body"
        given = repr(found["input"])
        given = given if len(given) <= INPUT_CHARACTERS else f"{given[:INPUT_CHARACTERS]}…"
        shown = "" if found["type"] == "missing" else f" is {given}"
        violations.append(Violation(field, f"{field}{shown}: {found['msg']}."))
    return InvalidRequest(" ".join(violation.description for violation in violations), violations=violations)


def _fields(texts: Mapping[str, str], schema: Mapping[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, text in texts.items():
        inside = INSIDE.fullmatch(name)
        if inside is not None:
            given.setdefault(inside[1], {})[inside[2]] = text
        else:
            given[name] = text if _is_text(schema.get(name, {})) else from_json(text)
    return given


def _is_text(schema: Mapping[str, Any]) -> bool:
    """Whether a text is good for a property as it stands."""
    options = schema.get("anyOf", [schema])
    return any(option.get("type") == "string" for option in options) or not schema


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HttpRefusal(408, "The caller hung up before the body was whole.")
        more = message.get("more_body", False)
        yield message.get("body", b"")


def _too_large() -> HttpRefusal:
    text = f"The body has more than {MAX_BYTES} bytes: use smaller images, or upload each by POST /media first."
    return HttpRefusal(413, text)
