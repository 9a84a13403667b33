"""A revision that has never had a ready worker is tried with one, so that a broken image starts no fleet."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from wan22_operator.record import READY, Record, State
from wan22_operator.revision import is_current
from wan22_operator.scaling.decision import load_seconds
from wan22_operator.workers import Seen

TRIAL_LOADS = 2.0
"""How long the others wait for the first: so many load times after it was given a node. If it has not failed by then
it is slow."""
LEAST_TRIAL_SECONDS = 120.0


def proven(record: Record, workers: Sequence[Seen]) -> Record:
    """Remembers that a worker of the present revision was ready."""
    if record.revision and any(seen.state in READY and _is_of(record, seen) for seen in workers):
        return replace(record, proven=record.revision)
    return record


def first_of(record: Record, workers: Sequence[Seen], leaving: Collection[str], now: float) -> str | None:
    """Name of the worker that the others wait for, empty where it is to be made; None where they need not wait."""
    if record.proven == record.revision:
        return None
    for seen in workers:
        if (
            not _is_of(record, seen)
            or seen.state in {State.LOST, State.DRAINING}
            or seen.deleted
            or seen.name in leaving
        ):
            continue
        return seen.name if now - seen.scheduled_time < patience(record) else None
    return ""


def _is_of(record: Record, seen: Seen) -> bool:
    """Whether a worker is of the present revision, or is to be made of it."""
    if seen.pod is None:
        return record.version_for(seen.record) == record.model_version
    return is_current(seen.record.revision, record.revision)


def patience(record: Record) -> float:
    """Seconds for which the others wait for the first, from when it was given a node."""
    return max(TRIAL_LOADS * load_seconds([load.seconds for load in record.loads]), LEAST_TRIAL_SECONDS)


def sentence(name: str, others: int, record: Record) -> str:
    """Says why there are fewer workers than wanted."""
    return (
        f"{name} is the first worker as the spec says: {others} more follow when it is ready, "
        f"or after {patience(record):.0f} s without a failure."
    )
