"""Generations that are not here yet: how many are expected, and when."""

from __future__ import annotations

from wan22_operator.scaling.lookahead import Job
from wan22_operator.scaling.snapshot import Demand

MINUTE = 1 / 3
"""The weight of the last minute."""


def arrivals_per_second(demand: Demand) -> float:
    """The expected rate: a third of the last minute's and two thirds of the last ten minutes'.

    The minute sees a burst at once, the ten minutes remember that there was one. Of such sums the one that foretells
    the next minutes best in the training days of a production trace.
    """
    return MINUTE * demand.arrivals_60s / 60 + (1 - MINUTE) * demand.arrivals_10m / 600


def mean_seconds(demand: Demand) -> float:
    """Predicted seconds of a generation that is not here yet; 0 where nothing arrived in ten minutes."""
    return demand.mean_seconds_10m or demand.mean_seconds_60s


def expected_jobs(demand: Demand, share: float, horizon: float, objective: float, soonest: float) -> list[Job]:
    """The expected arrivals of the next `horizon` seconds times `share`, spread evenly over it.

    Each should start `objective` seconds after it came, or in `soonest` seconds where that is later.
    """
    count = round(share * arrivals_per_second(demand) * horizon)
    seconds = mean_seconds(demand)
    return [Job(seconds, max((index + 0.5) * horizon / count + objective, soonest)) for index in range(count)]
