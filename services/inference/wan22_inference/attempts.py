"""The attempt book: who may say what about which attempt, and what the worker holds. Pure; times are passed in."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum, auto

from wan22.errors import Aborted, FailedPrecondition, NotFound, Reason, Unavailable

MAX_REMEMBERED = 100_000
"""Generations whose highest owner is remembered; beyond it the one seen least recently, not held, is forgotten."""
MAX_FINISHING = 1
"""Attempts whose video is still being written when another one starts: each has its frames in host memory."""


@dataclass(frozen=True, order=True)
class Fence:
    """What makes one owner newer than another: the attempt's number, then the owner's epoch."""

    number: int
    owner_epoch: int

    @property
    def metadata(self) -> dict[str, str]:
        """For an error's: whom a stale caller is told to have come before it."""
        return {"number": str(self.number), "owner_epoch": str(self.owner_epoch)}


@dataclass(frozen=True)
class AttemptKey:
    """One try at one generation, whoever owns it."""

    generation: str
    number: int

    def __str__(self) -> str:
        return f"attempt {self.number} of {self.generation}"


class Phase(Enum):
    """How far an attempt is, in this order."""

    PREPARED = auto()
    """It waits beside a running one."""
    RUNNING = auto()
    """It has the device."""
    FINISHING = auto()
    """It has left the device to the next one; its video is being written."""
    ENDED = auto()
    """It has an outcome."""
    WITHDRAWN = auto()
    """It was taken back before it started, and may come again under the same number."""


@dataclass
class HeldAttempt:
    """An attempt whose work or outcome is here."""

    key: AttemptKey
    fence: Fence
    """With the highest epoch seen."""
    phase: Phase = Phase.RUNNING
    cancel_requested: bool = False
    release_requested: bool = False
    stream: int | None = None
    """The stream that may follow it: the last that attached and was not displaced."""
    orphan_since: float | None = None
    """Since when nobody follows it, while it does not run."""

    @property
    def prepared(self) -> bool:
        """True until it starts."""
        return self.phase is Phase.PREPARED

    @property
    def running(self) -> bool:
        """True from its start until its work has ended."""
        return self.phase in {Phase.RUNNING, Phase.FINISHING}


@dataclass
class _Seen:
    fence: Fence
    released: bool = False
    """True once the attempt of that number was released: it must not start again."""


class AttemptBook:
    """Remembers the highest (number, owner_epoch) of each generation, and refuses whatever is older.

    At most one attempt has the device, one beside it is finishing, and one is prepared; one attempt of a generation is
    held. A caller with a higher number displaces the older attempt, one with a higher epoch the older owner's stream.
    """

    def __init__(self, orphan_grace: float) -> None:
        self._orphan_grace = orphan_grace
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._held: dict[str, HeldAttempt] = {}
        self._streams = 0

    @property
    def held(self) -> tuple[HeldAttempt, ...]:
        """What is held, oldest first."""
        return tuple(self._held.values())

    @property
    def running(self) -> HeldAttempt | None:
        """The attempt that has the device."""
        return self._first(Phase.RUNNING)

    @property
    def prepared(self) -> HeldAttempt | None:
        """The attempt that runs next."""
        return self._first(Phase.PREPARED)

    @property
    def busy(self) -> bool:
        """Whether the work of an attempt is under way."""
        return any(held.running for held in self._held.values())

    def observe(self, generation: str, fence: Fence) -> HeldAttempt | None:
        """Takes note of a caller; every call goes through here first.

        Returns an older attempt of the generation that is thereby displaced, with its stream, and held no longer: its
        work is to be stopped, its files are to go. Raises Aborted (STALE_OWNER) when somebody newer was here.
        """
        seen = self._seen.get(generation)
        if seen is not None and fence < seen.fence:
            raise Aborted(
                f"Attempt {fence.number}, owner epoch {fence.owner_epoch} of {generation} is stale: the newest seen is "
                f"attempt {seen.fence.number}, owner epoch {seen.fence.owner_epoch}. Stop working on it.",
                reason=Reason.STALE_OWNER,
                metadata=seen.fence.metadata,
            )
        released = seen is not None and seen.released and seen.fence.number == fence.number
        self._seen[generation] = _Seen(fence, released)
        self._seen.move_to_end(generation)
        self._forget_least_recent()
        held = self._held.get(generation)
        if held is None:
            return None
        if held.key.number < fence.number:
            held.stream = None
            if held.prepared:
                held.phase = Phase.WITHDRAWN
            return self._held.pop(generation)
        if held.fence < fence:
            held.fence, held.stream = fence, None
        return None

    def find(self, key: AttemptKey) -> HeldAttempt | None:
        """The attempt, if it is held."""
        held = self._held.get(key.generation)
        return held if held is not None and held.key == key else None

    def check_place(self, key: AttemptKey, *, may_prepare: bool) -> None:
        """Raises unless this attempt, which is not held, may start or be prepared now.

        Unavailable (WORKER_BUSY) while it can do neither, FailedPrecondition once it was released.
        """
        if self.prepared is not None or not (may_prepare or self._device_is_free()):
            busy_with = " and ".join(str(held.key) for held in self._held.values() if held.running or held.prepared)
            text = f"The worker is busy with {busy_with}: try another worker, or later."
            raise Unavailable(text, reason=Reason.WORKER_BUSY)
        seen = self._seen.get(key.generation)
        if seen is not None and seen.released and seen.fence.number == key.number:
            raise FailedPrecondition(
                f"{key} was released: its outcome is durable. Use a higher number for another try.",
                reason=Reason.ATTEMPT_RELEASED,
            )

    def begin(self, generation: str, fence: Fence, *, may_prepare: bool = False) -> HeldAttempt:
        """Takes an attempt that was observed and is not held: RUNNING, or PREPARED; raises as check_place does."""
        key = AttemptKey(generation, fence.number)
        self.check_place(key, may_prepare=may_prepare)
        phase = Phase.RUNNING if self._device_is_free() else Phase.PREPARED
        held = self._held[generation] = HeldAttempt(key, fence, phase)
        return held

    def leave_device(self, held: HeldAttempt) -> None:
        """Takes note that what is left of a running attempt's work is to write its video."""
        held.phase = Phase.FINISHING

    def start_next(self) -> HeldAttempt | None:
        """Makes the prepared attempt the running one and returns it, if there is one and the device is free."""
        held = self.prepared
        if held is None or not self._device_is_free():
            return None
        held.phase, held.orphan_since = Phase.RUNNING, None
        return held

    def withdraw_prepared(self) -> HeldAttempt | None:
        """Takes whatever is prepared back and returns it: the worker leaves."""
        held = self.prepared
        return None if held is None else self._withdraw(held)

    def attach(self, held: HeldAttempt) -> int:
        """Makes a new stream the one that follows the attempt; one that followed it before is displaced."""
        self._streams += 1
        held.stream, held.orphan_since = self._streams, None
        return self._streams

    def detach(self, held: HeldAttempt, stream: int, now: float) -> None:
        """Takes note that a stream has ended; of no effect for a displaced one."""
        if held.stream == stream:
            held.stream = None
        if held.stream is None and not held.running and held.orphan_since is None:
            held.orphan_since = now

    def end(self, held: HeldAttempt, now: float) -> bool:
        """Takes note that the work has ended. Returns True when the attempt is held no longer, being released."""
        held.phase = Phase.ENDED
        if held.stream is None:
            held.orphan_since = now
        if self.find(held.key) is not held:
            return True
        if held.release_requested:
            del self._held[held.key.generation]
            return True
        return False

    def cancel(self, key: AttemptKey) -> HeldAttempt:
        """Notes that an observed owner wants the attempt stopped; a prepared one is thereby withdrawn.

        Raises NotFound when it is not held.
        """
        held = self.find(key)
        if held is None:
            raise NotFound(f"The worker does not hold {key}: it never started here, or it was released.")
        if held.prepared:
            return self._withdraw(held)
        held.cancel_requested = held.cancel_requested or held.running
        return held

    def release(self, key: AttemptKey) -> HeldAttempt | None:
        """Notes that an observed owner has the outcome, and returns the attempt if its files may go now.

        A cancelled attempt that has not stopped yet goes when it stops. Raises FailedPrecondition for one that runs or
        is prepared.
        """
        held = self.find(key)
        if held is not None and held.prepared:
            raise FailedPrecondition(f"{key} has not started, it has no outcome yet: cancel it, or wait for its end.")
        if held is not None and held.running and not held.cancel_requested:
            raise FailedPrecondition(f"{key} is running, it has no outcome yet: cancel it, or wait for its end.")
        self._seen[key.generation].released = True
        if held is None:
            return None
        if held.running:
            held.release_requested = True
            return None
        return self._held.pop(key.generation)

    def expire(self, now: float) -> list[HeldAttempt]:
        """Takes out, and returns, what does not run and was followed by nobody for `orphan_grace` seconds."""
        expired = [
            held
            for held in self._held.values()
            if held.orphan_since is not None and now - held.orphan_since >= self._orphan_grace
        ]
        for held in expired:
            if held.prepared:
                self._withdraw(held)
            else:
                del self._held[held.key.generation]
        return expired

    def _first(self, phase: Phase) -> HeldAttempt | None:
        return next((held for held in self._held.values() if held.phase is phase), None)

    def _device_is_free(self) -> bool:
        finishing = sum(held.phase is Phase.FINISHING for held in self._held.values())
        return self.running is None and finishing <= MAX_FINISHING

    def _withdraw(self, held: HeldAttempt) -> HeldAttempt:
        held.phase = Phase.WITHDRAWN
        return self._held.pop(held.key.generation)

    def _forget_least_recent(self) -> None:
        if len(self._seen) > MAX_REMEMBERED:
            del self._seen[next(generation for generation in self._seen if generation not in self._held)]
