"""What may go wrong with one call of the operator."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TypeVar

from wan22.errors import Unavailable
from wan22_operator.cluster import ApiFailure

STALL_SECONDS = 30.0
LATE_SHARE = 0.25
"""Of writes that rest on what was read before."""
OLD_SHARE = 0.25
"""Of looks at what a watch has told."""
MOST_ROUNDS = 6
T = TypeVar("T")


class Killed(BaseException):
    """The operator's process is gone, by SIGKILL: nothing of it catches this."""


class Fault(StrEnum):
    """One kind."""

    CONFLICT = "409 by somebody else's write"
    GONE = "410"
    THROTTLED = "429"
    BROKEN = "500"
    UNREACHABLE = "no connection"
    ANSWER_LOST = "done, and the answer lost"
    KILLED_BEFORE = "killed before it"
    KILLED_AFTER = "killed after it"
    STALLED = "stalled for 30 s, and then done"
    STALLED_LOST = "stalled for 30 s, and not done"
    RIVAL = "another operator's whole round in the middle"
    LATE = "written after another operator's rounds, on what was read before them"
    OLD = "decided on what a watch told, which is late"


_WEIGHTS = {Fault.STALLED: 3, Fault.RIVAL: 5, Fault.LATE: 0, Fault.OLD: 0}
"""Those that time passes in, or another writer: what goes wrong by them is seldom. Two have shares of their own."""
_CODES = {
    Fault.CONFLICT: (409, "Conflict"),
    Fault.GONE: (410, "Expired"),
    Fault.THROTTLED: (429, "TooManyRequests"),
    Fault.BROKEN: (500, "InternalError"),
    Fault.UNREACHABLE: (0, "Unreachable"),
    Fault.ANSWER_LOST: (0, "Unreachable"),
    Fault.STALLED_LOST: (0, "Unreachable"),
}


class Faults:
    """Lets a share of calls go wrong; counts what it did."""

    def __init__(
        self,
        rng: random.Random,
        share: float,
        *,
        pass_time: Callable[[float], None],
        rival: Callable[[int], Awaitable[None]],
    ) -> None:
        self.share = share
        self.counts: Counter[Fault] = Counter()
        self._rng = rng
        self._pass_time = pass_time
        self._rival = rival

    def told_of(self, events: int) -> int:
        """With how many of so many events a watch is not late."""
        if not self.share or not events or self._rng.random() >= OLD_SHARE:
            return events
        self.counts[Fault.OLD] += 1
        return self._rng.randrange(events)

    async def call(self, do: Callable[[], T], *, of_gateway: bool = False, rests_on_read: bool = False) -> T:
        """The call's answer, or what became of it. Raises ApiFailure, or Unavailable of the gateway; Killed.

        Between what a write `rests_on_read` of and the write itself another operator is at work especially often.
        """
        if rests_on_read and self.share and self._rng.random() < LATE_SHARE:
            self.counts[Fault.LATE] += 1
            await self._rival(self._rng.randint(1, MOST_ROUNDS))
            return do()
        if self._rng.random() >= self.share:
            return do()
        fault = self._rng.choices(list(Fault), [_WEIGHTS.get(fault, 1) for fault in Fault])[0]
        self.counts[fault] += 1
        if fault in {Fault.STALLED, Fault.STALLED_LOST}:
            self._pass_time(STALL_SECONDS)
        if fault is Fault.RIVAL:
            await self._rival(1)
        if fault in {Fault.STALLED, Fault.RIVAL}:
            return do()
        if fault in {Fault.ANSWER_LOST, Fault.KILLED_AFTER}:
            do()
        if fault in {Fault.KILLED_BEFORE, Fault.KILLED_AFTER}:
            raise Killed(fault)
        if of_gateway:
            raise Unavailable(f"The gateway does not answer ({fault}): try again.")
        raise ApiFailure(*_CODES[fault], f"The API server says {fault}.")
