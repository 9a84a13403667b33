"""Requests of all kinds as hypothesis draws them: in order, nearly in order, and nonsense."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from . import rows
from .any_rpc import SERVICES
from .good_requests import GOOD, SLOTS
from .scripted_worker import T2V

METHODS = [method for service in SERVICES for method in service.methods]
KNOWN_TEXTS = (
    "",
    T2V,
    rows.POOL,
    "pools/test.other",
    rows.VERSION,
    "workers/w1",
    "tenants/default",
    "tenants/fuzz",
    "adapter:latest",
    "media/" + 64 * "0",
    "deliveries/msg_" + 32 * "0",
    "https://example.invalid/hook",
    "https://a..b/",
    "a..b:1",
    "localhost:²",
    "nan",
    "1e999",
    "a cat",
    "\0",
    "media/" + 64 * "\0",
    "1e9999999",
    "x" * 20_000,
    "🦊" * 513,
)


def scalars(field: Any) -> st.SearchStrategy[Any]:
    """Values of a field that is no message: edges, nonsense, and what means something here."""
    kinds = FieldDescriptor
    bounds = {
        kinds.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
        kinds.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
        kinds.CPPTYPE_UINT32: (0, (1 << 32) - 1),
        kinds.CPPTYPE_UINT64: (0, (1 << 64) - 1),
        kinds.CPPTYPE_ENUM: (-1, 9),
    }
    if field.cpp_type in bounds:
        low, high = bounds[field.cpp_type]
        return st.sampled_from([0, 1, 2, 4, 5, 64, 480, 832, low, high]) | st.integers(low, high)
    if field.cpp_type == kinds.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type in {kinds.CPPTYPE_FLOAT, kinds.CPPTYPE_DOUBLE}:
        return st.sampled_from([0.0, 1.0, 4.0, -1.0, 1e38]) | st.floats(width=32)
    if field.type == kinds.TYPE_BYTES:
        return st.binary(max_size=200)
    return st.sampled_from(KNOWN_TEXTS) | st.text(max_size=30)


def set_field(draw: st.DrawFn, message: Message, field: Any, depth: int) -> None:
    """Gives a field some value, right or wrong."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (scalars(field.message_type.fields_by_name[name]) for name in ("key", "value"))
        getattr(message, field.name)[draw(key)] = draw(value)
    elif field.message_type is not None:
        inner = messages(GetMessageClass(field.message_type), depth + 1)
        if field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(inner, max_size=3)))
        else:
            getattr(message, field.name).CopyFrom(draw(inner))
    else:
        values = scalars(field)
        if field.name in {"name", "generation"}:
            values = st.sampled_from([f"generations/{slot}" for slot in SLOTS]) | values
        if field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(values, max_size=3)))
        else:
            setattr(message, field.name, draw(values))


@st.composite
def messages(draw: st.DrawFn, kind: Any, depth: int = 0) -> Message:
    """A message with some of its fields, some of them wrong."""
    message: Message = kind()
    for each in kind.DESCRIPTOR.fields:
        if draw(st.booleans()) and depth <= 4:
            set_field(draw, message, each, depth)
    return message


@st.composite
def nearly_good(draw: st.DrawFn, good: Message) -> Message:
    """A message that is in order but for a field or two, at whatever depth."""
    message: Message = type(good)()
    message.CopyFrom(good)
    for _ in range(draw(st.integers(0, 2))):
        part = message
        while part.DESCRIPTOR.fields:
            each: Any = draw(st.sampled_from(list(part.DESCRIPTOR.fields)))
            inner = each.message_type
            if inner is None or inner.GetOptions().map_entry or each.is_repeated or draw(st.booleans()):
                set_field(draw, part, each, 0)
                break
            part = getattr(part, each.name)
            part.SetInParent()  # an empty part is there, too
    return message


@st.composite
def calls(draw: st.DrawFn) -> tuple[MethodDescriptor, list[bytes]]:
    """A method and what is sent to it: messages of its kind, or bytes that are none."""
    method = draw(st.sampled_from(METHODS))
    some = messages(GetMessageClass(method.input_type))
    good = GOOD.get(method.name)
    if good is not None:
        some = some | nearly_good(good) | nearly_good(good)
    part = some.map(lambda message: message.SerializeToString()) | st.binary(max_size=100)
    return method, draw(st.lists(part, max_size=3)) if method.client_streaming else [draw(part)]


def json_values() -> st.SearchStrategy[Any]:
    leaves = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(KNOWN_TEXTS)
    )
    keys = st.sampled_from(["prompt", "model", "variant", "seconds", "size", "parameters", "seed", "generation"])
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | st.text(max_size=9), inner, max_size=5),
    )


QUERIES = ("", "?", "?limit=-1", "?after=x&after=y", "?after=%00", "?%ff=%fe", "?expires=1&signature=%00")


@st.composite
def http_requests(draw: st.DrawFn, paths: list[tuple[str, str]]) -> tuple[str, str, bytes]:
    """A method, a path, mostly one that is there, and a body."""
    method, path = draw(st.sampled_from(paths))
    while "{" in path:
        before, _, rest = path.partition("{")
        path = before + draw(st.sampled_from([*SLOTS, "x", "%00", "..", "0" * 36])) + rest.partition("}")[2]
    query = draw(st.sampled_from(QUERIES))
    body = draw(json_values().map(lambda value: json.dumps(value).encode()) | st.binary(max_size=100))
    return draw(st.sampled_from([method, "GET", "PUT"])), path + query, body
