"""Parameters to and from their protobuf message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from wan22.errors import InvalidRequest
from wan22.loras import Expert, Lora, RequestedLora
from wan22.parameters import Parameters, RequestedParameters
from wan22.profiles import Profile
from wan22.solvers import Solver
from wan22.v1 import generation_pb2

T = TypeVar("T")
DEFAULTS = frozenset({"profile", "loras", "cut_prompt", "omit_prompt"})
"""Parameters with a default for all variants, so that a gateway which does not know them may leave them out."""


def from_message(message: generation_pb2.Parameters) -> RequestedParameters:
    """What a request says; an absent field becomes None. Raises InvalidRequest for a member that no enum here has."""
    given: dict[str, Any] = {descriptor.name: value for descriptor, value in message.ListFields()}
    given.setdefault("prompt", "")
    if "solver" in given:
        given["solver"] = _named(generation_pb2.Parameters.Solver, Solver, "solver", message.solver)
    if "profile" in given:
        given["profile"] = _named(generation_pb2.Parameters.Profile, Profile, "profile", message.profile)
    given["loras"] = tuple(_lora(lora, number) for number, lora in enumerate(message.loras))
    return RequestedParameters(**given)


def complete_from_message(message: generation_pb2.Parameters) -> Parameters:
    """What a gateway resolved. Raises TypeError when a parameter that every variant has is absent."""
    given = dict(vars(from_message(message)))
    given["loras"] = tuple(lora.complete() for lora in given["loras"])
    optional = {"guidance_scale_low", "boundary", "image", "last_image", *DEFAULTS}
    missing = [name for name, value in given.items() if value is None and name not in optional]
    if missing:
        raise TypeError(f"parameters lack {', '.join(missing)}")
    return Parameters(**{name: value for name, value in given.items() if value is not None or name not in DEFAULTS})


def to_message(parameters: Parameters) -> generation_pb2.Parameters:
    """Every parameter that takes effect; None stays absent."""
    given = {name: value for name, value in vars(parameters).items() if value is not None}
    given["solver"] = generation_pb2.Parameters.Solver.Value(parameters.solver)
    given["profile"] = generation_pb2.Parameters.Profile.Value(parameters.profile)
    given["loras"] = [_lora_message(lora) for lora in parameters.loras]
    return generation_pb2.Parameters(**given)


def _lora(message: generation_pb2.Lora, number: int) -> RequestedLora:
    expert = None
    if message.HasField("expert"):
        expert = _named(generation_pb2.Lora.Expert, Expert, f"loras[{number}].expert", message.expert)
    strength = message.strength if message.HasField("strength") else None
    return RequestedLora(adapter=message.adapter, expert=expert, strength=strength)


def _lora_message(lora: Lora) -> generation_pb2.Lora:
    expert = generation_pb2.Lora.Expert.Value(lora.expert)
    return generation_pb2.Lora(adapter=lora.adapter, expert=expert, strength=lora.strength)


def _named(enum: Any, kind: Callable[[str], T], field: str, number: int) -> T:
    """The member of `kind` that a number of a protobuf enum stands for; 0 is none."""
    names = {value: name for name, value in enum.items() if value}
    if number not in names:
        known = ", ".join(f"{name} ({value})" for value, name in names.items())
        raise InvalidRequest(f"{field} is {number}: use one of {known}.", field=f"parameters.{field}")
    return kind(names[number])
