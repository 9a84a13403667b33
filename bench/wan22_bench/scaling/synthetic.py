"""Traces made here, from a seed: steady, bursts, day and night, a step, a flash crowd."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wan22_bench.scaling.trace import DAY, Trace

Rate = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Generations an hour, at times in seconds."""
MEDIAN_SECONDS, SPREAD, SHORTEST, LONGEST = 90.0, 0.7, 10.0, 600.0
"""Of a video on one GPU: from a few steps at 480p to full quality at 720p."""

SHAPES: dict[str, Rate] = {
    "steady": lambda time: np.full_like(time, 200.0),
    "burst": lambda time: np.where(time % 3600 < 300, 1200.0, 60.0),
    "diurnal": lambda time: 150.0 - 145.0 * np.cos(time / DAY * 2 * np.pi),
    "step": lambda time: np.where(time < DAY / 2, 40.0, 300.0),
    "flash crowd": lambda time: np.where(np.abs(time - DAY / 2) < 600, 2000.0, 30.0),
}


def synthetic_trace(shape: str, seed: int, days: int = 1) -> Trace:
    """A Poisson process of the named rate, thinned from its peak, with log-normal sizes."""
    rng = np.random.default_rng(seed)
    rate = SHAPES[shape]
    peak = float(rate(np.arange(0.0, DAY, 10.0)).max())
    count = rng.poisson(peak * 24 * days)
    times = np.sort(rng.random(count) * days * DAY)
    times = times[rng.random(count) * peak < rate(times % DAY)]
    seconds = np.clip(np.exp(rng.normal(np.log(MEDIAN_SECONDS), SPREAD, len(times))), SHORTEST, LONGEST)
    return Trace(times, seconds)
