"""What the operator remembers of a pool between two rounds; a restart begins without it and comes to no harm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from wan22_operator.record import State
from wan22_operator.workers import Seen


@dataclass(slots=True)
class Memory:
    """Of one pool."""

    progress: dict[str, tuple[int, float]] = field(default_factory=dict)
    """By a loading worker's uid its bytes left, and since when."""
    first_seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    """By a loading worker's uid the bytes left when it was first seen to load, and when that was."""
    taken: set[str] = field(default_factory=set)
    """Names of pods that are somebody else's."""
    refused: str = ""
    """Why a pod could not be created last, in words."""
    next_round: float | None = None
    """Seconds to the next round, where something is soon to be looked at; by itself a round comes in time."""
    children_due: bool = True
    """Its shared objects are to be compared."""
    children_time: float = 0.0

    def note(self, workers: Sequence[Seen], now: float) -> None:
        """Follows how far loads are."""
        loading = {
            seen.record.uid: seen.record.bytes_left
            for seen in workers
            if seen.state is State.LOADING and seen.record.bytes_left
        }
        self.first_seen = {uid: self.first_seen.get(uid, (left, now)) for uid, left in loading.items()}
        self.progress = {
            uid: known if (known := self.progress.get(uid)) and known[0] == left else (left, now)
            for uid, left in loading.items()
        }

    def load_seconds_left(self, seen: Seen, now: float) -> float | None:
        """How long a worker will load at the pace that it has had; None before there is one."""
        if seen.record.uid not in self.first_seen or not seen.record.bytes_left:
            return None
        left, time = self.first_seen[seen.record.uid]
        done = left - seen.record.bytes_left
        return seen.record.bytes_left * (now - time) / done if done > 0 else None
