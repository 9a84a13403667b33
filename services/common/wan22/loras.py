"""LoRA adapters as a request names them: which, for which expert, and how strongly."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_LORAS = 8
"""Of one request; each takes memory beside the weights."""


class Expert(StrEnum):
    """Which of a variant's transformers, by its name in generation.proto."""

    HIGH = "HIGH"
    """The high-noise one."""
    LOW = "LOW"
    """The low-noise one."""
    BOTH = "BOTH"
    """Both, and the only one of a variant with one."""


@dataclass(frozen=True, kw_only=True)
class RequestedLora:
    """What a request says; None is absent."""

    adapter: str
    """MODEL[:TAG][@sha256:DIGEST] or models/{model}/versions/{digest}."""
    expert: Expert | None = None
    strength: float | None = None


@dataclass(frozen=True, kw_only=True)
class Lora:
    """What takes effect."""

    adapter: str
    """Format: models/{model}/versions/{digest}."""
    expert: Expert
    strength: float
    """What its deltas are multiplied with."""
