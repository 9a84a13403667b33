"""What a decision is made from: figures of one pool at one time, each with the time at which it was taken."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class WorkerState(StrEnum):
    """What a worker does. A lost one, whose node is gone and whose lease has lapsed, is in no snapshot."""

    LOADING = "loading"
    IDLE = "idle"
    BUSY = "busy"
    LEAVING = "leaving"
    """Fenced or being deleted: it takes nothing new, and still holds its GPU."""
    UNKNOWN = "unknown"
    """Its pod exists, and nobody knows what it does: it is never removed and never counted on."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A sensor's figure and when it was taken."""

    value: float
    time: float
    """Seconds since the epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Worker:
    """One worker of the pool."""

    name: str
    state: WorkerState
    since: float
    """When the state began; for a worker that loads, when its pod was created. Seconds since the epoch."""
    predicted_seconds: float = 0.0
    """Of the generation that a busy one runs; it began at `since`."""
    load_seconds_left: float | None = None
    """Of one that loads, from its bytes left; None where that is unknown."""
    gpu_utilization: Reading | None = None
    """In [0, 1]; None where there is no sensor. Whatever lies outside, and 0, is no reading: broken sensors and MIG
    give such values."""


@dataclass(frozen=True, slots=True)
class Queued:
    """Consecutive queued generations."""

    count: int
    predicted_seconds: float
    """Of all of them together."""
    oldest_create_time: float
    """Seconds since the epoch."""
    start_by_time: float | None = None
    """The earliest time at which one of them must start to make a deadline of its own; None where none has one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """What the gateway says that the pool is asked to do."""

    time: float
    """When these figures were true; seconds since the epoch."""
    complete: bool = True
    """False until the gateway has looked at every worker once since it started."""
    queued: tuple[Queued, ...] = ()
    """In dispatch order."""
    arrivals_60s: int = 0
    mean_seconds_60s: float = 0.0
    """Mean predicted seconds of those."""
    arrivals_10m: int = 0
    mean_seconds_10m: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Within what a pool may be scaled."""

    minimum: int = 0
    maximum: int = 1
    budget: int | None = None
    """Workers that the shared GPU budget leaves to this pool, those that it has included; None: no such budget."""
    objective_seconds: float = 120.0
    """A generation should start within this after it was accepted."""
    stale_seconds: float = 45.0
    """Figures older than this are no evidence for removing a worker: three intervals of the operator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """All that is known about a pool at one time."""

    now: float
    """Seconds since the epoch."""
    limits: Limits
    demand: Demand | None
    """None when the gateway has not answered."""
    workers: tuple[Worker, ...] = ()
    workers_time: float | None = None
    """When the workers' states were last seen; None: never."""
    load_times: tuple[float, ...] = ()
    """Seconds of the last loads that succeeded, at most 20 of them."""
    unschedulable: int = 0
    """Pods of the pool that no node takes."""
