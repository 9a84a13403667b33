from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from wan22.errors import Aborted, FailedPrecondition, NotFound, Reason, Unavailable
from wan22_inference import attempts
from wan22_inference.attempts import AttemptBook, AttemptKey, Fence, HeldAttempt

GRACE = 600.0


def begin(book: AttemptBook, generation: str, number: int, epoch: int) -> HeldAttempt:
    book.observe(generation, Fence(number, epoch))
    return book.begin(generation, Fence(number, epoch))


@pytest.mark.parametrize("older", [Fence(1, 9), Fence(2, 4)])
def test_an_older_number_or_epoch_is_refused(older: Fence) -> None:
    book = AttemptBook(GRACE)
    book.observe("g", Fence(2, 5))
    with pytest.raises(Aborted, match="the newest seen is attempt 2, owner epoch 5") as caught:
        book.observe("g", older)
    assert caught.value.reason is Reason.STALE_OWNER


def test_a_refused_caller_changes_nothing() -> None:
    book = AttemptBook(GRACE)
    held = begin(book, "g", 2, 5)
    stream = book.attach(held)
    with pytest.raises(Aborted):
        book.observe("g", Fence(1, 9))
    assert (held.fence, held.stream) == (Fence(2, 5), stream)


def test_a_higher_epoch_takes_the_running_attempt_over() -> None:
    book = AttemptBook(GRACE)
    held = begin(book, "g", 1, 1)
    old = book.attach(held)
    assert book.observe("g", Fence(1, 2)) is None
    assert book.find(AttemptKey("g", 1)) is held
    assert held.fence == Fence(1, 2)
    assert held.stream is None  # the older owner's stream is displaced before a new one attaches
    new = book.attach(held)
    assert new != old
    book.detach(held, old, now=1.0)
    assert held.stream == new


def test_a_higher_number_displaces_the_running_attempt_and_may_start() -> None:
    book = AttemptBook(GRACE)
    first = begin(book, "g", 1, 7)
    book.attach(first)
    assert book.observe("g", Fence(2, 1)) is first
    assert first.stream is None
    assert book.held == ()
    second = book.begin("g", Fence(2, 1))
    assert book.running is second
    assert book.end(first, now=5.0)  # it is not held: its files may go
    assert book.running is second


def test_another_generation_waits_while_one_runs() -> None:
    book = AttemptBook(GRACE)
    held = begin(book, "a", 1, 1)
    book.observe("b", Fence(1, 1))
    with pytest.raises(Unavailable, match="busy with attempt 1 of a") as caught:
        book.begin("b", Fence(1, 1))
    assert caught.value.reason is Reason.WORKER_BUSY
    book.end(held, now=0.0)
    assert book.begin("b", Fence(1, 1)).running
    assert [h.key.generation for h in book.held] == ["a", "b"]


def test_a_cancelled_attempt_blocks_until_it_has_stopped() -> None:
    book = AttemptBook(GRACE)
    held = begin(book, "a", 1, 1)
    assert book.cancel(held.key).cancel_requested
    book.observe("b", Fence(1, 1))
    with pytest.raises(Unavailable):
        book.begin("b", Fence(1, 1))


def test_cancelling_what_is_not_held_says_so_and_what_has_ended_changes_nothing() -> None:
    book = AttemptBook(GRACE)
    book.observe("g", Fence(1, 1))
    with pytest.raises(NotFound, match="does not hold attempt 1 of g"):
        book.cancel(AttemptKey("g", 1))
    held = book.begin("g", Fence(1, 1))
    book.end(held, now=0.0)
    assert not book.cancel(held.key).cancel_requested


def test_a_running_attempt_is_not_released() -> None:
    book = AttemptBook(GRACE)
    held = begin(book, "g", 1, 1)
    with pytest.raises(FailedPrecondition, match="attempt 1 of g is running"):
        book.release(held.key)
    book.end(held, now=0.0)
    assert book.release(held.key) is held
    assert book.held == ()
    assert book.release(held.key) is None  # idempotent


def test_a_cancelled_attempt_may_be_released_before_it_has_stopped() -> None:
    book = AttemptBook(GRACE)
    held = begin(book, "g", 1, 1)
    book.cancel(held.key)
    assert book.release(held.key) is None
    assert book.running is held
    assert book.end(held, now=0.0)
    assert book.held == ()


def test_a_released_attempt_never_starts_again_but_a_higher_number_does() -> None:
    book = AttemptBook(GRACE)
    held = begin(book, "g", 1, 1)
    book.end(held, now=0.0)
    book.release(held.key)
    book.observe("g", Fence(1, 2))  # a takeover that does not know of the release
    with pytest.raises(FailedPrecondition, match="attempt 1 of g was released"):
        book.begin("g", Fence(1, 2))
    book.observe("g", Fence(2, 1))
    assert book.begin("g", Fence(2, 1)).running


def test_an_outcome_expires_when_nobody_follows_it_for_the_grace() -> None:
    book = AttemptBook(GRACE)
    held = begin(book, "g", 1, 1)
    stream = book.attach(held)
    book.end(held, now=10.0)
    assert book.expire(now=10_000.0) == []  # somebody follows it
    book.detach(held, stream, now=10_000.0)
    assert book.expire(now=10_599.9) == []
    assert book.expire(now=10_600.0) == [held]
    assert book.held == ()


def test_a_running_attempt_never_expires_and_a_return_stops_the_clock() -> None:
    book = AttemptBook(GRACE)
    held = begin(book, "g", 1, 1)
    assert book.expire(now=1e9) == []
    book.end(held, now=0.0)
    stream = book.attach(held)
    assert book.expire(now=1e9) == []
    book.detach(held, stream, now=5.0)
    assert book.expire(now=604.0) == []
    assert book.expire(now=605.0) == [held]


def test_the_clock_runs_when_a_takeover_displaced_the_stream_and_did_not_attach() -> None:
    book = AttemptBook(GRACE)
    held = begin(book, "g", 1, 1)
    stream = book.attach(held)
    book.end(held, now=0.0)
    book.observe("g", Fence(1, 2))
    book.detach(held, stream, now=3.0)
    assert book.expire(now=603.0) == [held]


def test_memory_of_generations_is_bounded_but_what_is_held_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "MAX_REMEMBERED", 3)
    book = AttemptBook(GRACE)
    begin(book, "held", 2, 1)
    for index in range(10):
        book.observe(f"g{index}", Fence(2, 1))
    with pytest.raises(Aborted):
        book.observe("held", Fence(1, 1))
    with pytest.raises(Aborted):
        book.observe("g9", Fence(1, 1))
    book.observe("g0", Fence(1, 1))  # forgotten long ago


class BookMachine(RuleBasedStateMachine):
    """Two generations, callers of any age in any order."""

    generations = st.sampled_from(["a", "b"])
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

    @rule(generation=generations, fence=fences)
    def generate(self, generation: str, fence: Fence) -> None:
        if not self.observe(generation, fence):
            return
        key = AttemptKey(generation, fence.number)
        held = self.book.find(key)
        if held is None:
            busy = self.book.running
            try:
                held = self.book.begin(generation, fence)
            except Unavailable:
                assert busy is not None
                return
            except FailedPrecondition:
                assert key in self.released
                return
            assert busy is None
            assert key not in self.released
            self.unfinished.append(held)
        assert held.fence == fence
        self.book.attach(held)

    @rule(generation=generations, fence=fences)
    def cancel(self, generation: str, fence: Fence) -> None:
        key = AttemptKey(generation, fence.number)
        if self.observe(generation, fence):
            if self.book.find(key) is None:
                with pytest.raises(NotFound):
                    self.book.cancel(key)
            else:
                assert self.book.cancel(key).key == key

    @rule(generation=generations, fence=fences)
    def release(self, generation: str, fence: Fence) -> None:
        if not self.observe(generation, fence):
            return
        key = AttemptKey(generation, fence.number)
        held = self.book.find(key)
        if held is not None and held.running and not held.cancel_requested:
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
    def at_most_one_runs_and_each_is_owned_by_the_newest(self) -> None:
        assert sum(held.running for held in self.book.held) <= 1
        for held in self.book.held:
            assert held.fence == self.highest[held.key.generation]
            assert held.key.number == held.fence.number
        generations = [held.key.generation for held in self.book.held]
        assert len(generations) == len(set(generations))


TestBookMachine = BookMachine.TestCase
TestBookMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
