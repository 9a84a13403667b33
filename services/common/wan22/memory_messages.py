"""Economy and holdings to and from their protobuf messages."""

from __future__ import annotations

from dataclasses import asdict

from wan22.economy import Economy
from wan22.memory_model import Holdings
from wan22.v1 import generation_pb2, inference_pb2


def economy_message(economy: Economy) -> generation_pb2.Economy:
    """Every step that is taken."""
    return generation_pb2.Economy(**economy.entries())


def economy_from_message(message: generation_pb2.Economy) -> Economy:
    """An absent step is not taken."""
    return Economy(**{field.name: value for field, value in message.ListFields()})


def memory_message(holdings: Holdings) -> inference_pb2.Worker.Memory:
    """Field by field."""
    return inference_pb2.Worker.Memory(**asdict(holdings))


def holdings_from_message(message: inference_pb2.Worker.Memory) -> Holdings:
    """Field by field."""
    return Holdings(**{field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields})
