"""The attempt book under callers of any age in any order."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from wan22.errors import Aborted, FailedPrecondition, NotFound, Unavailable
from wan22_inference.attempts import AttemptBook, AttemptKey, Fence, HeldAttempt, Phase

GRACE = 600.0


class BookMachine(RuleBasedStateMachine):
    """Four generations, callers of any age in any order."""

    generations = st.sampled_from(["a", "b", "c", "d"])
    fences = st.builds(Fence, st.integers(1, 3), st.integers(1, 3))

    def __init__(self) -> None:
        super().__init__()
        self.book = AttemptBook(GRACE)
        self.now = 0.0
        self.highest: dict[str, Fence] = {}
        self.unfinished: list[HeldAttempt] = []
        self.released: set[AttemptKey] = set()

    def observe(self, generation: str, fence: Fence) -> bool:
        """True when the caller is let in, which must be exactly when nobody newer was seen."""
        stale = fence < self.highest.get(generation, Fence(0, 0))
        before = self.book.held
        try:
            displaced = self.book.observe(generation, fence)
        except Aborted:
            assert stale
            assert self.book.held == before
            return False
        assert not stale
        assert displaced is None or displaced.key.number < fence.number
        self.highest[generation] = fence
        return True

    @rule(generation=generations, fence=fences, may_prepare=st.booleans())
    def generate(self, generation: str, fence: Fence, *, may_prepare: bool) -> None:
        if not self.observe(generation, fence):
            return
        key = AttemptKey(generation, fence.number)
        held = self.book.find(key)
        if held is None:
            prepared = self.book.prepared
            try:
                held = self.book.begin(generation, fence, may_prepare=may_prepare)
            except Unavailable:
                assert prepared is not None or (self.book.busy and not may_prepare)
                return
            except FailedPrecondition:
                assert key in self.released
                return
            assert prepared is None
            assert may_prepare or held.running
            assert key not in self.released
            if held.running:
                self.unfinished.append(held)
        assert held.fence == fence
        self.book.attach(held)

    @rule(generation=generations, fence=fences)
    def cancel(self, generation: str, fence: Fence) -> None:
        key = AttemptKey(generation, fence.number)
        if self.observe(generation, fence):
            held = self.book.find(key)
            if held is None:
                with pytest.raises(NotFound):
                    self.book.cancel(key)
            else:
                prepared = held.prepared
                assert self.book.cancel(key) is held
                assert (self.book.find(key) is None) == prepared

    @rule(data=st.data())
    def leave_device(self, data: st.DataObject) -> None:
        computing = [held for held in self.unfinished if held.phase is Phase.RUNNING]
        if computing:
            self.book.leave_device(data.draw(st.sampled_from(computing)))

    @rule()
    def start_next(self) -> None:
        waiting, free = self.book.prepared, self.book.running is None
        started = self.book.start_next()
        if started is not None:
            assert started is waiting
            assert free
            self.unfinished.append(started)

    @rule()
    def drain(self) -> None:
        waiting = self.book.prepared
        assert self.book.withdraw_prepared() is waiting

    @rule(generation=generations, fence=fences)
    def release(self, generation: str, fence: Fence) -> None:
        if not self.observe(generation, fence):
            return
        key = AttemptKey(generation, fence.number)
        held = self.book.find(key)
        if held is not None and (held.prepared or (held.running and not held.cancel_requested)):
            with pytest.raises(FailedPrecondition):
                self.book.release(key)
        else:
            gone = self.book.release(key)
            assert gone is None or gone is held
            self.released.add(key)

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.unfinished:
            held = data.draw(st.sampled_from(self.unfinished))
            self.unfinished.remove(held)
            gone = self.book.end(held, self.now)
            assert gone == (self.book.find(held.key) is not held)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.book.held:
            held = data.draw(st.sampled_from(self.book.held))
            if held.stream is not None:
                self.book.detach(held, held.stream, self.now)

    @rule(seconds=st.sampled_from([1.0, GRACE]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for held in self.book.expire(self.now):
            assert not held.running
            assert held.stream is None

    @invariant()
    def each_phase_has_its_bound_and_each_attempt_is_owned_by_the_newest(self) -> None:
        phases = Counter(held.phase for held in self.book.held)
        assert phases[Phase.RUNNING] <= 1
        assert phases[Phase.PREPARED] <= 1
        assert phases[Phase.FINISHING] <= 2
        assert phases[Phase.WITHDRAWN] == 0
        for held in self.book.held:
            assert held.fence == self.highest[held.key.generation]
            assert held.key.number == held.fence.number
        generations = [held.key.generation for held in self.book.held]
        assert len(generations) == len(set(generations))


TestBookMachine = BookMachine.TestCase
TestBookMachine.settings = settings(max_examples=100, stateful_step_count=40)
