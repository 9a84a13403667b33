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
        self.progress = {
            uid: known if (known := self.progress.get(uid)) and known[0] == left else (left, now)
            for uid, left in loading.items()
        }
