"""Parameters to and from their protobuf message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from wan22.errors import InvalidRequest
from wan22.parameters import Parameters, RequestedParameters
from wan22.profiles import Profile
from wan22.solvers import Solver
from wan22.v1 import generation_pb2

T = TypeVar("T")
DEFAULTS = frozenset({"profile", "cut_prompt", "omit_prompt"})
"""Parameters with a default for all variants, so that a gateway which does not know them may leave them out."""


def from_message(message: generation_pb2.Parameters) -> RequestedParameters:
    """What a request says; an absent field becomes None. Raises InvalidRequest for an unknown solver or profile."""
    given: dict[str, Any] = {descriptor.name: value for descriptor, value in message.ListFields()}
    given.setdefault("prompt", "")
    if "solver" in given:
        given["solver"] = _named(generation_pb2.Parameters.Solver, Solver, "solver", message.solver)
    if "profile" in given:
        given["profile"] = _named(generation_pb2.Parameters.Profile, Profile, "profile", message.profile)
    return RequestedParameters(**given)


def complete_from_message(message: generation_pb2.Parameters) -> Parameters:
    """What a gateway resolved. Raises TypeError when a parameter that every variant has is absent."""
    given = asdict(from_message(message))
    optional = {"guidance_scale_low", "boundary", "image", "last_image", *DEFAULTS}
    missing = [name for name, value in given.items() if value is None and name not in optional]
    if missing:
        raise TypeError(f"parameters lack {', '.join(missing)}")
    return Parameters(**{name: value for name, value in given.items() if value is not None or name not in DEFAULTS})


def to_message(parameters: Parameters) -> generation_pb2.Parameters:
    """Every parameter that takes effect; None stays absent."""
    given = {name: value for name, value in asdict(parameters).items() if value is not None}
    given["solver"] = generation_pb2.Parameters.Solver.Value(parameters.solver)
    given["profile"] = generation_pb2.Parameters.Profile.Value(parameters.profile)
    return generation_pb2.Parameters(**given)


def _named(enum: Any, kind: Callable[[str], T], field: str, number: int) -> T:
    """The member of `kind` that a number of a protobuf enum stands for; 0 is none."""
    names = {value: name for name, value in enum.items() if value}
    if number not in names:
        known = ", ".join(f"{name} ({value})" for value, name in names.items())
        raise InvalidRequest(f"{field} is {number}: use one of {known}.", field=f"parameters.{field}")
    return kind(names[number])
