"""The GPU-hours that no policy can go below, whatever it knows: a proof by prices, found anew for each trace."""

from __future__ import annotations

from math import floor

import numpy as np
from numpy.typing import NDArray

from wan22_bench.scaling.simulator import Setup, load_factors
from wan22_bench.scaling.trace import Trace

Array = NDArray[np.float64]
STEP_SECONDS = 10.0
"""Between two points of the price, which is linear between them."""
ROUNDS = 600
MOMENTUM, SMOOTHING, FIRST_STEP, HALVED_AFTER = 0.9, 0.99, 0.02, 150.0


def least_gpu_seconds(trace: Trace, setup: Setup, share: float) -> float:
    """GPU-seconds that any policy takes, with which at least that share starts within the objective.

    Let y(t) be what a worker that stands ready at t is worth: any function with 0 <= y <= load that rises by at most a
    second a second. A worker that serves generations from s to e, one after the other, costs its load, their seconds,
    and its idle times. Between two of them it idles for at least y(s') - y(e), and y(s) <= load, y(e) >= 0 at its ends:
    so it costs at least the sum of (e - s) + y(s) - y(e) over its generations. A generation in time can make its own
    term no smaller than the least over the starts within its objective, and a late one no smaller than its seconds less
    a load. The sum of these is a floor for every y, and the y with the greatest is looked for by subgradients; a worse
    one is a lower floor, and true as well. As many as may be late are those that this saves most.
    """
    if not len(trace):
        return 0.0
    load, late = setup.load_seconds, floor((1 - share) * len(trace) + 1e-9)
    starts = _starts(trace, setup.objective_seconds)
    price = _Price(load, float(starts.max() + trace.seconds.max()) + STEP_SECONDS)
    best = 0.0
    for number in range(ROUNDS):
        terms = price.at(starts) - price.at(starts + trace.seconds[:, None])
        chosen = terms.argmin(axis=1)
        least = np.take_along_axis(terms, chosen[:, None], axis=1)[:, 0]
        in_time = np.argsort(least)[: len(trace) - late]
        best = max(best, float(least[in_time].sum()) - late * load)
        first = starts[in_time, chosen[in_time]]
        price.climb(first, first + trace.seconds[in_time], FIRST_STEP * load / (1 + number / HALVED_AFTER))
    return float(trace.seconds.sum()) + max(0.0, best + _shortest_loads(trace, setup))


def _starts(trace: Trace, objective: float) -> Array:
    """By generation the starts among which its least term is: where it starts or ends at a point of the price.

    Between those a term is linear, and so the least at one of them or at the window's ends.
    """
    first, last = trace.arrivals[:, None], trace.arrivals[:, None] + objective
    ends = first + trace.seconds[:, None]
    steps = np.arange(floor(objective / STEP_SECONDS) + 1) * STEP_SECONDS
    begin_at_point = np.ceil(first / STEP_SECONDS) * STEP_SECONDS + steps
    end_at_point = np.ceil(ends / STEP_SECONDS) * STEP_SECONDS - trace.seconds[:, None] + steps
    starts: Array = np.clip(np.hstack([first, begin_at_point, end_at_point, last]), first, last)
    return starts


def _shortest_loads(trace: Trace, setup: Setup) -> float:
    """By how much the loads of a run, each of its own length, may fall short of as many of the usual length."""
    return min(0.0, float(np.cumsum(load_factors(len(trace), setup) - 1.0).min()) * setup.load_seconds)


class _Price:
    """What a ready worker is worth at each time: y, and how it is bettered."""

    def __init__(self, load: float, until: float) -> None:
        self._points = np.arange(int(until / STEP_SECONDS) + 3) * STEP_SECONDS
        self._load = load
        self._values = np.full(len(self._points), load / 2)
        self._direction = np.zeros(len(self._points))
        self._scale = np.zeros(len(self._points))

    def at(self, times: Array) -> Array:
        prices: Array = np.interp(times, self._points, self._values)
        return prices

    def climb(self, starts: Array, ends: Array, step: float) -> None:
        """A step up the sum of the prices at these starts less those at these ends, kept within what y may be."""
        slope = self._weights(starts) - self._weights(ends)
        self._direction = MOMENTUM * self._direction + (1 - MOMENTUM) * slope
        self._scale = SMOOTHING * self._scale + (1 - SMOOTHING) * slope**2
        moved = np.clip(self._values + step * self._direction / (np.sqrt(self._scale) + 1e-3), 0.0, self._load)
        falls = moved - self._points
        lowered, raised = np.minimum.accumulate(falls), np.maximum.accumulate(falls[::-1])[::-1]
        self._values = (lowered + raised) / 2 + self._points

    def _weights(self, times: Array) -> Array:
        """How much each point counts in the prices at these times."""
        index, within = np.divmod(times / STEP_SECONDS, 1.0)
        left, count = index.astype(np.int64), len(self._points)
        return np.asarray(np.bincount(left, 1.0 - within, count) + np.bincount(left + 1, within, count), np.float64)
