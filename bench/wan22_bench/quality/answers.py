"""What a judge has read from videos, beside what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wan22_testing.shapes.world import Group

Shown = frozenset[Group]


@dataclass(frozen=True)
class Answers:
    """Of each video what was asked for, and what was read."""

    wanted: Sequence[Shown]
    read: Sequence[Shown]

    @property
    def share(self) -> float:
        """Of the videos that show just what was asked for: all attributes at once."""
        return _share([wanted == read for wanted, read in zip(self.wanted, self.read, strict=True)])

    def share_with(self, objects: int) -> float | None:
        """The same of the videos of so many objects; None where there are none."""
        pairs = zip(self.wanted, self.read, strict=True)
        right = [wanted == read for wanted, read in pairs if sum(group.number for group in wanted) == objects]
        return _share(right) if right else None

    @property
    def chance(self) -> float | None:
        """The share to expect when the prompts are shuffled: each video against every other prompt.

        None of fewer than two videos.
        """
        right = [
            wanted == read
            for asked, wanted in enumerate(self.wanted)
            for shown, read in enumerate(self.read)
            if asked != shown
        ]
        return _share(right) if right else None

    def same_as(self, other: Answers) -> float:
        """The share of videos of which the judge has read the same as of the other's."""
        return _share([ours == theirs for ours, theirs in zip(self.read, other.read, strict=True)])


def _share(right: Sequence[bool]) -> float:
    return sum(right) / len(right)
