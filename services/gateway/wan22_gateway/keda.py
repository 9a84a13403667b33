"""How many workers a pool's demand asks for, as one number for KEDA's autoscaler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from wan22.errors import InvalidRequest
from wan22.names import check_pool
from wan22.v1 import pool_pb2

METRIC = "wan22-workers"
DEFAULT_OBJECTIVE = 120.0
MOST_OBJECTIVE = 86_400.0
LEAST_LEFT = 0.1
"""A generation that outlives its prediction is taken to last this share of it longer."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a trigger's metadata ask for."""

    pool: str
    objective: float
    """Seconds within which what waits now should have been worked off."""

    @classmethod
    def parse(cls, metadata: Mapping[str, str]) -> Self:
        """Raises InvalidRequest; KEDA's own entries (scalerAddress and others) are not looked at."""
        pool = check_pool(metadata.get("pool", ""), "scalerMetadata.pool")
        text = metadata.get("objectiveSeconds", f"{DEFAULT_OBJECTIVE:g}")
        try:
            objective = float(text)
        except ValueError:
            objective = math.nan
        if not 1 <= objective <= MOST_OBJECTIVE:
            message = f"objectiveSeconds is {text!r}: use 1 to {MOST_OBJECTIVE:g}."
            raise InvalidRequest(message, field="scalerMetadata.objectiveSeconds")
        return cls(pool, objective)


def has_work(demand: pool_pb2.Demand) -> bool:
    """Whether anything is queued or running."""
    return bool(demand.queued or demand.running)


def workers_wanted(demand: pool_pb2.Demand, objective: float, most: int) -> int:
    """How many workers would be busy, if the pool were to work off what it has within the objective.

    That is the outstanding seconds of work (of running generations what is predicted to be left) over the objective,
    rounded up: with target 1 it is the number of replicas that an autoscaler sets. It is never fewer than are running
    now, so that no busy worker is taken away, never more than there are generations or than the pool may have, and 0
    only where there is no work at all.
    """
    left = sum(
        max(running.predicted_seconds - running.elapsed_seconds, LEAST_LEFT * running.predicted_seconds)
        for running in demand.running
    )
    waiting = sum(bucket.count for bucket in demand.queued)
    outstanding = left + sum(bucket.predicted_seconds for bucket in demand.queued)
    running = len(demand.running)
    wanted = max(math.ceil(outstanding / objective), 1 if waiting else 0, running)
    return min(wanted, running + waiting, max(most, running))
