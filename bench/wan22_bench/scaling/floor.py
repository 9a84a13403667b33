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

    Let y(t) be what a worker that stands ready at t is worth: any function with 0 <= y <= cap that rises by at most a
    second a second. A worker that loads for l and serves generations from s to e, one after the other, costs l, their
    seconds, and its idle times. Between two of them it idles for at least y(s') - y(e), and y(s) <= cap, y(e) >= 0 at
    its ends: so it costs at least l - cap and the sum of (e - s) + y(s) - y(e) over its generations. A generation in
    time can make its own term no smaller than the least over the starts within its objective, and a late one no smaller
    than its seconds less the cap. The sum of these is a floor for every y, and the y with the greatest is looked for by
    subgradients; a worse one is a lower floor, and true as well. As many as may be late are those that this saves most.
    """
    if not len(trace):
        return 0.0
    late = floor((1 - share) * len(trace) + 1e-9)
    cap, loads = _loads(len(trace), setup)
    starts = _starts(trace, setup.objective_seconds)
    price = _Price(cap, float(starts.max() + trace.seconds.max()) + STEP_SECONDS)
    best = 0.0
    for number in range(ROUNDS):
        terms = price.at(starts) - price.at(starts + trace.seconds[:, None])
        chosen = terms.argmin(axis=1)
        least = np.take_along_axis(terms, chosen[:, None], axis=1)[:, 0]
        in_time = np.argsort(least)[: len(trace) - late]
        best = max(best, float(least[in_time].sum()) - late * cap)
        first = starts[in_time, chosen[in_time]]
        price.climb(first, first + trace.seconds[in_time], FIRST_STEP * cap / (1 + number / HALVED_AFTER))
    return float(trace.seconds.sum()) + max(0.0, best + loads)


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


def _loads(generations: int, setup: Setup) -> tuple[float, float]:
    """The cap of the price, and the least that all loads less a cap each may come to, zero or less.

    Loads differ, and who knew them could start workers until one loads quickly: each that serves nobody costs its stop,
    unless the end comes before it. With the greatest cap with which that never pays over a run of all different loads,
    the least is that of a part of one run.
    """
    loads, stop = load_factors(generations, setup) * setup.load_seconds, setup.stop_seconds
    low, high = 0.0, float(loads.max())
    while high - low > 1e-6:
        cap = (low + high) / 2
        low, high = (cap, high) if np.minimum(loads - cap, stop).sum() >= 0 else (low, cap)
    spent = np.minimum(loads - low, stop)
    alive_at_the_end = setup.max_workers * max(0.0, float(spent.max()))
    return low, min(0.0, float(np.cumsum(spent).min())) - alive_at_the_end


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
