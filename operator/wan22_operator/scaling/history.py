"""What decisions remember of earlier ones: kept in the pool's status, so that a restart forgets nothing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

MAX_STEPS = 32


@dataclass(frozen=True, slots=True)
class History:
    """How many workers were needed, and when last: steps of a time and a falling number, the oldest first."""

    needs: tuple[tuple[float, int], ...] = ()

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
        return History(tuple(kept))

    @property
    def held(self) -> int:
        """The most workers that were needed within the horizon."""
        return max((count for _, count in self.needs), default=0)

    def to_status(self) -> list[dict[str, Any]]:
        """As JSON values for the status."""
        return [{"time": time, "workers": count} for time, count in self.needs]

    @staticmethod
    def from_status(steps: list[dict[str, Any]]) -> History:
        """What `to_status` gave."""
        return History(tuple((float(step["time"]), int(step["workers"])) for step in steps[:MAX_STEPS]))
