"""Profiles: named sets of sampling parameters."""

from __future__ import annotations

from enum import StrEnum

from wan22.solvers import Solver


class Profile(StrEnum):
    """generation_pb2.Parameters.Profile, by name."""

    QUALITY = "QUALITY"
    """The official defaults; each may be given otherwise."""
    TURBO = "TURBO"
    """Four steps without guidance, for distilled weights; locked."""


TURBO_STEPS = 4
TURBO_SOLVER = Solver.EULER
TURBO_HIGH_STEPS = 2
"""Of the four steps, those that the high-noise expert runs: by index, whatever their sigmas."""


def turbo_flow_shift(*, last_image: bool) -> float:
    """5, or 16 between two images. Source: LightX2V's published configurations of the 4-step models."""
    return 16.0 if last_image else 5.0
