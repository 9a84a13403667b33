"""Parameters to and from their protobuf message."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from wan22.parameters import Parameters, RequestedParameters
from wan22.v1 import generation_pb2


def from_message(message: generation_pb2.Parameters) -> RequestedParameters:
    """What a request says; an absent field becomes None."""
    given: dict[str, Any] = {descriptor.name: value for descriptor, value in message.ListFields()}
    for field in fields(RequestedParameters):  # a present field of default value is not in ListFields of older runtimes
        if field.name != "prompt" and message.HasField(field.name):  # type: ignore[arg-type]
            given[field.name] = getattr(message, field.name)
    given.setdefault("prompt", "")
    return RequestedParameters(**given)


def complete_from_message(message: generation_pb2.Parameters) -> Parameters:
    """What a gateway resolved. Raises TypeError when a parameter that every variant has is absent."""
    given = asdict(from_message(message))
    optional = {"guidance_scale_low", "boundary", "image", "last_image"}
    missing = [name for name, value in given.items() if value is None and name not in optional]
    if missing:
        raise TypeError(f"parameters lack {', '.join(missing)}")
    return Parameters(**given)


def to_message(parameters: Parameters) -> generation_pb2.Parameters:
    """Every parameter that takes effect; None stays absent."""
    given = {name: value for name, value in asdict(parameters).items() if value is not None}
    return generation_pb2.Parameters(**given)
