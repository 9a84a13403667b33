from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wan22.errors import InvalidRequest
from wan22_bench.scaling.job_sizes import as_videos
from wan22_bench.scaling.synthetic import LONGEST, SHAPES, SHORTEST, synthetic_trace
from wan22_bench.scaling.trace import DAY, Trace, read_trace


def write(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text)
    return path


def test_times_count_from_the_midnight_before_the_first(tmp_path: Path) -> None:
    text = "created,exec_seconds\n2024-11-16 00:00:01,7\n2024-11-15 16:57:50,32.0\n"
    trace = read_trace(write(tmp_path, text))
    assert trace.arrivals.tolist() == [16 * 3600 + 57 * 60 + 50, DAY + 1]
    assert trace.seconds.tolist() == [32.0, 7.0]
    assert (trace.days, trace.useful_hours) == (2, 39 / 3600)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("time\n1\n", "has no column `created`"),
        ("created,exec_seconds\nyesterday,3\n", "line 2: Invalid isoformat string: 'yesterday'"),
        ("created,exec_seconds\n2024-11-15 10:00:00,long\n", "line 2: could not convert string to float: 'long'"),
        ("created,exec_seconds\n", "has no rows"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_trace(write(tmp_path, text))


def test_days_are_cut_at_midnights_and_count_anew() -> None:
    trace = Trace(np.array([10.0, DAY, DAY + 5.0, 2 * DAY]), np.ones(4))
    assert trace.between(1, 2).arrivals.tolist() == [0.0, 5.0]


def test_thinning_keeps_the_share_and_the_same_ones_for_a_seed() -> None:
    trace = Trace(np.arange(10_000.0), np.ones(10_000))
    kept = trace.thinned(0.25, seed=3)
    assert 2_350 <= len(kept) <= 2_650
    assert kept.arrivals.tolist() == trace.thinned(0.25, seed=3).arrivals.tolist()


def test_requests_become_videos_of_sensible_lengths() -> None:
    trace = Trace(np.arange(3.0), np.array([1.0, 23.0, 900.0]))
    assert as_videos(trace, 5.0, seed=1).seconds.tolist() == [SHORTEST, 115.0, LONGEST]
    drawn = as_videos(Trace(np.arange(5_000.0), np.zeros(5_000)), 5.0, seed=1).seconds
    assert 85.0 < float(np.median(drawn)) < 95.0
    assert SHORTEST <= drawn.min() < drawn.max() <= LONGEST


@pytest.mark.parametrize("shape", SHAPES)
def test_a_synthetic_day_has_its_rate_and_is_the_same_for_a_seed(shape: str) -> None:
    trace = synthetic_trace(shape, seed=5)
    expected = float(SHAPES[shape](np.arange(0.0, DAY)).sum()) / 3600
    assert abs(len(trace) - expected) < 5 * expected**0.5
    assert (np.diff(trace.arrivals) >= 0).all()
    assert trace.arrivals.tolist() == synthetic_trace(shape, seed=5).arrivals.tolist()


def test_the_flash_crowd_comes_at_noon() -> None:
    arrivals = synthetic_trace("flash crowd", seed=5).arrivals
    assert ((arrivals > DAY / 2 - 600) & (arrivals < DAY / 2 + 600)).sum() > 500
