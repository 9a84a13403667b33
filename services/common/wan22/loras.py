"""LoRA adapters as a request names them: which, for which expert, and how strongly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

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

    def indexes(self, experts: int) -> Sequence[int]:
        """Which it is of so many."""
        return {"HIGH": [0], "LOW": [experts - 1], "BOTH": range(experts)}[self.value]


@dataclass(frozen=True, kw_only=True)
class RequestedLora:
    """What a request says; None is absent."""

    adapter: str
    """MODEL[:TAG][@sha256:DIGEST] or models/{model}/versions/{digest}."""
    expert: Expert | None = None
    strength: float | None = None

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """From a JSON object, such as a recipe has."""
        expert = fields.get("expert")
        return cls(
            adapter=fields["adapter"],
            expert=None if expert is None else Expert(expert),
            strength=fields.get("strength"),
        )

    def complete(self) -> Lora:
        """What takes effect where nobody has said more: both experts, at strength 1."""
        strength = 1.0 if self.strength is None else float(self.strength)
        return Lora(adapter=self.adapter, expert=self.expert or Expert.BOTH, strength=strength)


@dataclass(frozen=True, kw_only=True)
class Lora:
    """What takes effect."""

    adapter: str
    """Format: models/{model}/versions/{digest}."""
    expert: Expert
    strength: float
    """What its deltas are multiplied with."""
