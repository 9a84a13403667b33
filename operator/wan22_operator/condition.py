"""Conditions of a resource (KEP-1623): one sentence each, and a time that changes only with the status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wan22_operator.times import text_of

MESSAGE_LIMIT = 32768


@dataclass(frozen=True, slots=True)
class Condition:
    """What is the case, why, and in words."""

    type: str
    status: str
    reason: str
    message: str

    @property
    def true(self) -> bool:
        """Whether it is the case."""
        return self.status == "True"


def yes(kind: str, reason: str, message: str) -> Condition:
    """It is the case."""
    return Condition(kind, "True", reason, message)


def no(kind: str, reason: str, message: str) -> Condition:
    """It is not."""
    return Condition(kind, "False", reason, message)


def unknown(kind: str, reason: str, message: str) -> Condition:
    """Nobody knows."""
    return Condition(kind, "Unknown", reason, message)


def to_status(
    conditions: Sequence[Condition], before: Sequence[Mapping[str, Any]], generation: int, now: float
) -> list[dict[str, Any]]:
    """As status has them; one whose status stays keeps its time."""
    known = {condition["type"]: condition for condition in before}

    def one(condition: Condition) -> dict[str, Any]:
        old = known.get(condition.type, {})
        stays = old.get("status") == condition.status
        return {
            "type": condition.type,
            "status": condition.status,
            "observedGeneration": generation,
            "lastTransitionTime": old["lastTransitionTime"] if stays else text_of(now),
            "reason": condition.reason,
            "message": condition.message[:MESSAGE_LIMIT],
        }

    return [one(condition) for condition in conditions]
