"""The rows of whole generations, and what they are to reach."""

from __future__ import annotations

from dataclasses import dataclass

from wan22_testing.modes import Mode


@dataclass(frozen=True)
class Goal:
    """A row of the benchmark."""

    id: str
    mode: Mode
    turbo: bool
    goal: float
    """Seconds on one H100, as is the floor."""
    floor: float


GOALS = (
    Goal("P3b", Mode.BF16, turbo=False, goal=193.0, floor=187.0),
    Goal("P3", Mode.FP8, turbo=False, goal=158.0, floor=152.0),
    Goal("P3f", Mode.ALL_FP8, turbo=False, goal=138.0, floor=128.0),
    Goal("P4", Mode.FP8, turbo=True, goal=9.0, floor=8.3),
    Goal("P4f", Mode.ALL_FP8, turbo=True, goal=8.0, floor=7.1),
)
WAIT = "P14"
MAX_WAIT = 0.05
"""Seconds."""
CAPS = ("P11a", "P11b", "P11c", "P11d")
"""Under a limit of memory."""
IDS = (*(goal.id for goal in GOALS), WAIT, *CAPS)
