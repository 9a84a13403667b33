"""A public trace's requests made into video generations: as many, at the same times, and longer."""

from __future__ import annotations

import numpy as np

from wan22_bench.scaling.synthetic import LONGEST, MEDIAN_SECONDS, SHORTEST, SPREAD
from wan22_bench.scaling.trace import Trace


def as_videos(trace: Trace, factor: float, seed: int) -> Trace:
    """Each request `factor` times as long, within 10 s and 600 s; drawn where the trace has no durations.

    A video takes minutes where an image takes seconds: a factor of 5 makes the median of 23 s two minutes.
    """
    if trace.seconds.any():
        return Trace(trace.arrivals, np.clip(trace.seconds * factor, SHORTEST, LONGEST))
    drawn = np.exp(np.random.default_rng(seed).normal(np.log(MEDIAN_SECONDS), SPREAD, len(trace)))
    return Trace(trace.arrivals, np.clip(drawn, SHORTEST, LONGEST))
