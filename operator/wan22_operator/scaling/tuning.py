"""The numbers of the decision that the simulator finds, on training days alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """How much a pool bets on generations that are not here yet; shares of the expected arrivals of one load time."""

    start_share: float = 0.5
    """For these a worker is started."""
    keep_share: float = 2.0
    """For these one is kept: more than start it, so that a worker which came does not leave at once."""
    hold_loads: float = 0.2
    """A worker is removed after it was not needed for this many load times."""
    objective_share: float = 1.0
    """Of the objective, what is aimed at: less leaves time for predictions that were too short."""
