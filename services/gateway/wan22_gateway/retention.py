"""How long videos, generations and uploaded images are kept."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from wan22.errors import InvalidRequest

DAY = 24 * 3600 * 1_000_000
MAX_KEEP = 3660 * DAY
"""Ten years: no store of ours is asked for longer, and no clock overflows."""


@dataclass(frozen=True)
class Retention:
    """The gateway's settings, microseconds; None keeps for good."""

    video: int | None
    """From the moment it is made."""
    generation: int | None
    """From its end; its video goes with it."""
    media: int | None
    """Since it was last uploaded or referred to, while no generation refers to it."""

    @classmethod
    def of_days(cls, video: float, generation: float, media: float) -> Retention:
        """From settings in days, where 0 keeps for good."""
        return cls(*(round(days * DAY) or None for days in (video, generation, media)))

    @property
    def most(self) -> int | None:
        """The longest that a video may be kept."""
        return min((each for each in (self.video, self.generation) if each is not None), default=None)

    def keep_for(self, wanted: Duration | None) -> int | None:
        """How long a request's video is kept. Raises InvalidRequest when it asks for what is not to be had."""
        if wanted is None:
            return self.most
        limit = MAX_KEEP if self.most is None else self.most
        asked = wanted.ToMicroseconds()
        if not 1_000_000 <= asked <= limit:
            text = f"keep_for is {asked / 1e6:g} s: use 1 s to {limit / 1e6:g} s, or leave it out for the most."
            raise InvalidRequest(text, field="keep_for")
        return asked
