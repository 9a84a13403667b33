"""Parameters to and from their protobuf message."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from wan22.errors import InvalidRequest
from wan22.parameters import Parameters, RequestedParameters
from wan22.solvers import Solver
from wan22.v1 import generation_pb2


def from_message(message: generation_pb2.Parameters) -> RequestedParameters:
    """What a request says; an absent field becomes None. Raises InvalidRequest for a solver that has no name here."""
    given: dict[str, Any] = {descriptor.name: value for descriptor, value in message.ListFields()}
    given.setdefault("prompt", "")
    if "solver" in given:
        given["solver"] = _solver(message.solver)
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
    given["solver"] = generation_pb2.Parameters.Solver.Value(parameters.solver)
    return generation_pb2.Parameters(**given)


def _solver(number: generation_pb2.Parameters.Solver.ValueType) -> Solver:
    names = {generation_pb2.Parameters.Solver.Value(solver): solver for solver in Solver}
    if number not in names:
        known = ", ".join(f"{solver} ({value})" for value, solver in names.items())
        raise InvalidRequest(f"solver is {number}: use one of {known}.", field="parameters.solver")
    return names[number]
