"""The numbers of the decision that the simulator finds, on training days alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """How much a pool bets on generations that are not here yet; shares of the expected arrivals of one load time."""

    start_share: float
    """For these a worker is started."""
    keep_share: float
    """For these one is kept: more than start it, so that a worker which came does not leave at once."""
    hold_loads: float
    """A worker is removed after it was not needed for this many load times."""
    objective_share: float
    """Of the objective, what is aimed at: less leaves time for predictions that were too short."""


SHORT_LOAD = Tuning(start_share=0.0, keep_share=0.75, hold_loads=0.05, objective_share=0.95)
"""Who waits for a new worker is still in time: none is started for who is not here yet."""
LONG_LOAD = Tuning(start_share=0.75, keep_share=3.0, hold_loads=0.15, objective_share=0.95)
"""Who waits for a new worker is late: it has to be there before, and is kept rather than started again."""


def tuning_for(load_seconds: float, objective_seconds: float) -> Tuning:
    """The numbers found for loads shorter, or longer, than the objective."""
    return SHORT_LOAD if load_seconds <= objective_seconds else LONG_LOAD
