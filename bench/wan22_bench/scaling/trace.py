"""A trace: when generations arrive and how long each keeps a worker busy."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wan22.errors import InvalidRequest

DAY = 86_400.0


@dataclass(frozen=True)
class Trace:
    """Generations in order of arrival."""

    arrivals: NDArray[np.float64]
    """Seconds since the midnight before the first."""
    seconds: NDArray[np.float64]
    """Of worker time each."""

    def __len__(self) -> int:
        return len(self.arrivals)

    @property
    def useful_hours(self) -> float:
        """GPU-hours of the generations alone."""
        return float(self.seconds.sum()) / 3600

    @property
    def days(self) -> int:
        """Days from the first midnight to the end of the last day with an arrival."""
        return int(self.arrivals[-1] // DAY) + 1 if len(self) else 0

    def between(self, first_day: int, last_day: int) -> Trace:
        """The days [first_day, last_day), counted from 0; times then count from the first one's midnight."""
        inside = (self.arrivals >= first_day * DAY) & (self.arrivals < last_day * DAY)
        return Trace(self.arrivals[inside] - first_day * DAY, self.seconds[inside])

    def thinned(self, share: float, seed: int) -> Trace:
        """Each generation kept with the given probability."""
        kept = np.random.default_rng(seed).random(len(self)) < share
        return Trace(self.arrivals[kept], self.seconds[kept])

    def compressed(self, factor: float) -> Trace:
        """The same generations in a `factor`th of the time."""
        return Trace(self.arrivals / factor, self.seconds)


def read_trace(path: Path) -> Trace:
    """Reads a CSV with a column `created` (ISO 8601) and, where it has one, `exec_seconds`, else zeros.

    Raises InvalidRequest for a file without them, or with a time or number that cannot be read.
    """
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        if "created" not in (rows.fieldnames or ()):
            raise InvalidRequest(f"{path} has no column `created`: a trace is a CSV with `created` and `exec_seconds`.")
        try:
            pairs = sorted(
                (datetime.fromisoformat(row["created"]).timestamp(), float(row.get("exec_seconds") or 0))
                for row in rows
            )
        except ValueError as error:
            raise InvalidRequest(f"{path}, line {rows.line_num}: {error}.") from error
    if not pairs:
        raise InvalidRequest(f"{path} has no rows.")
    arrivals, seconds = np.array(pairs).T
    first = datetime.fromtimestamp(pairs[0][0]).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()  # noqa: DTZ006  # as read
    return Trace(arrivals - first, seconds)
