"""Protobuf messages as JSON: models made from their descriptors, so that what HTTP takes and gives is what gRPC has.

Names are those of the .proto files; the rest is protobuf's JSON mapping (protobuf.dev/programming-guides/json): 64-bit
integers are strings in answers, enums go by name, times are RFC 3339, durations end in `s`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message
from pydantic import Field, create_model

from wan22.errors import InvalidRequest
from wan22_gateway.http.model import Model

M = TypeVar("M", bound=Message)
INT64 = r"^-?(0|[1-9][0-9]{0,18})$"
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Duration = Annotated[str, Field(pattern=r"^[0-9]{1,12}(\.[0-9]{1,9})?s$", examples=["600s"])]
WELL_KNOWN: Mapping[str, Any] = {
    "google.protobuf.Timestamp": Time,
    "google.protobuf.Duration": Duration,
    "google.protobuf.Any": dict[str, Any],
}
Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Uint32 = Annotated[int, Field(ge=0, le=2**32 - 1)]
Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/_-]*=*$", json_schema_extra={"contentEncoding": "base64"})]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Int64Text = Annotated[str, Field(pattern=INT64)]


@cache
def request_model(descriptor: Descriptor, without: frozenset[str] = frozenset()) -> type[Model]:
    """A model of a message in a request: every field may be absent, or null, which is the same."""
    return create_model(descriptor.name, __base__=Model, **request_fields(descriptor, without))


def request_fields(descriptor: Descriptor, without: frozenset[str]) -> dict[str, Any]:
    """The fields of such a model, for one that has others, too."""
    return {
        field.name: (_type(field, request=True) | None, None)
        for field in descriptor.fields
        if field.name not in without
    }


@cache
def answer_model(descriptor: Descriptor) -> type[Model]:
    """A model of a message in an answer: fields without presence are always there, others where they are set."""
    fields: dict[str, Any] = {}
    for field in descriptor.fields:
        kind = _type(field, request=False)
        fields[field.name] = (kind | None, None) if field.has_presence else (kind, ...)
    return create_model(f"{descriptor.name}Answer", __base__=Model, **fields)


def to_json(message: Message) -> dict[str, Any]:
    """A message as its answer model describes it."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def from_json(given: dict[str, Any], message: M) -> M:
    """Fills a message with what models have let through. Raises InvalidRequest for a value that no message can have."""
    try:
        return ParseDict(given, message)
    except ParseError as error:
        raise InvalidRequest(f"The request cannot be read: {error}.") from None


def _type(field: FieldDescriptor, *, request: bool) -> Any:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        values = entry.fields_by_name["value"]
        return dict[str, _single(values, request=request)]  # type: ignore[misc]  # a type that is known at run time
    one = _single(field, request=request)
    return list[one] if field.is_repeated else one  # type: ignore[valid-type]


def _single(field: FieldDescriptor, *, request: bool) -> Any:
    kinds = FieldDescriptor
    if field.message_type is not None:
        known = WELL_KNOWN.get(field.message_type.full_name)
        return known or (request_model if request else answer_model)(field.message_type)
    if field.enum_type is not None:
        values = [value.name for value in field.enum_type.values if value.number or not request]
        return Literal[tuple(values)]
    if field.type == kinds.TYPE_INT64:
        return Int64 | Int64Text if request else Int64Text
    plain: dict[int, Any] = {
        kinds.TYPE_INT32: Int32,
        kinds.TYPE_UINT32: Uint32,
        kinds.TYPE_FLOAT: float,
        kinds.TYPE_DOUBLE: float,
        kinds.TYPE_BOOL: bool,
        kinds.TYPE_STRING: str,
        kinds.TYPE_BYTES: Base64,
    }
    return plain[field.type]
