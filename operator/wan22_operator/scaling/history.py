"""What decisions remember of earlier ones: kept in the pool's status, so that a restart forgets nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

MAX_STEPS = 32


@dataclass(frozen=True, slots=True)
class History:
    """How many workers were needed, and when last: steps of a time and a falling number, the oldest first."""

    needs: tuple[tuple[float, int], ...] = ()
    let_go: tuple[float, int] | None = None
    """When workers were last removed as not needed, seconds since the epoch, and how many stayed."""

    def remember(self, now: float, need: int, horizon: float) -> History:
        """With a need added, and those forgotten that are older than `horizon` or lower than a later one.

        Time never goes back: an entry from the future, after a clock was set, counts as of now. At most 32 steps are
        kept; to keep them two neighbours become the higher number at the later time, which holds a worker longer, never
        shorter.
        """
        kept = [(min(time, now), count) for time, count in self.needs if time > now - horizon and count > need]
        kept.append((now, need))
        while len(kept) > MAX_STEPS:
            gaps = [later[0] - earlier[0] for earlier, later in pairwise(kept)]
            index = gaps.index(min(gaps))
            kept[index : index + 2] = [(kept[index + 1][0], kept[index][1])]
        return replace(self, needs=tuple(kept))

    @property
    def held(self) -> int:
        """The most workers that were needed within the horizon."""
        return max((count for _, count in self.needs), default=0)
