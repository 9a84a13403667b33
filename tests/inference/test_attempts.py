from __future__ import annotations

import pytest

from wan22.errors import Aborted, FailedPrecondition, NotFound, Reason, Unavailable
from wan22_inference import attempts
from wan22_inference.attempts import AttemptBook, AttemptKey, Fence, HeldAttempt, Phase

GRACE = 600.0


def begin(book: AttemptBook, generation: str, number: int, epoch: int) -> HeldAttempt:
    book.observe(generation, Fence(number, epoch))
    return book.begin(generation, Fence(number, epoch), may_prepare=True)


@pytest.mark.parametrize("older", [Fence(1, 9), Fence(2, 4)])
def test_an_older_number_or_epoch_is_refused(older: Fence) -> None:
    book = AttemptBook(GRACE)
    book.observe("g", Fence(2, 5))
    with pytest.raises(Aborted, match="the newest seen is attempt 2, owner epoch 5") as caught:
        book.observe("g", older)
    assert caught.value.reason is Reason.STALE_OWNER
    assert caught.value.metadata == {"number": "2", "owner_epoch": "5"}


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


def test_one_generation_is_prepared_beside_a_running_one_and_a_third_is_refused() -> None:
    book = AttemptBook(GRACE)
    running = begin(book, "a", 1, 1)
    prepared = begin(book, "b", 1, 1)
    assert (running.phase, prepared.phase) == (Phase.RUNNING, Phase.PREPARED)
    assert not prepared.running
    book.observe("c", Fence(1, 1))
    with pytest.raises(Unavailable, match="busy with attempt 1 of a and attempt 1 of b") as caught:
        book.begin("c", Fence(1, 1), may_prepare=True)
    assert caught.value.reason is Reason.WORKER_BUSY
    assert book.start_next() is None
    book.end(running, now=0.0)
    assert book.start_next() is prepared
    assert prepared.phase is Phase.RUNNING
    assert begin(book, "c", 1, 1).prepared
    assert [h.key.generation for h in book.held] == ["a", "b", "c"]


def test_a_caller_that_knows_of_no_preparing_is_refused_while_one_runs() -> None:
    book = AttemptBook(GRACE)
    held = begin(book, "a", 1, 1)
    book.observe("b", Fence(1, 1))
    with pytest.raises(Unavailable, match="busy with attempt 1 of a:") as caught:
        book.begin("b", Fence(1, 1))
    assert caught.value.reason is Reason.WORKER_BUSY
    book.end(held, now=0.0)
    assert book.begin("b", Fence(1, 1)).running


def test_the_next_starts_when_the_running_one_only_writes_its_video_but_not_beside_two_that_do() -> None:
    book = AttemptBook(GRACE)
    first, second = begin(book, "a", 1, 1), begin(book, "b", 1, 1)
    book.leave_device(first)
    assert first.running
    assert book.busy
    assert book.start_next() is second
    third = begin(book, "c", 1, 1)
    book.leave_device(second)
    assert book.start_next() is None
    assert third.prepared
    book.end(first, now=0.0)
    assert book.start_next() is third


def test_a_cancelled_attempt_keeps_the_next_waiting_until_it_has_stopped() -> None:
    book = AttemptBook(GRACE)
    held = begin(book, "a", 1, 1)
    assert book.cancel(held.key).cancel_requested
    assert begin(book, "b", 1, 1).prepared
    assert book.start_next() is None


def test_a_prepared_attempt_that_is_cancelled_may_come_again_under_the_same_number() -> None:
    book = AttemptBook(GRACE)
    begin(book, "a", 1, 1)
    prepared = begin(book, "b", 1, 1)
    assert book.cancel(prepared.key) is prepared
    assert (prepared.phase, prepared.cancel_requested) == (Phase.WITHDRAWN, False)
    assert book.find(prepared.key) is None
    assert begin(book, "b", 1, 2).prepared


def test_a_worker_that_leaves_gives_back_what_is_prepared() -> None:
    book = AttemptBook(GRACE)
    running, prepared = begin(book, "a", 1, 1), begin(book, "b", 1, 1)
    assert book.withdraw_prepared() is prepared
    assert (book.held, prepared.phase) == ((running,), Phase.WITHDRAWN)
    book.end(running, now=0.0)
    assert book.start_next() is None


def test_a_prepared_attempt_is_not_released() -> None:
    book = AttemptBook(GRACE)
    begin(book, "a", 1, 1)
    prepared = begin(book, "b", 1, 1)
    with pytest.raises(FailedPrecondition, match="attempt 1 of b has not started"):
        book.release(prepared.key)
    assert book.prepared is prepared


def test_a_higher_number_withdraws_the_prepared_attempt_and_a_higher_epoch_takes_it_over() -> None:
    book = AttemptBook(GRACE)
    begin(book, "a", 1, 1)
    prepared = begin(book, "b", 1, 1)
    book.attach(prepared)
    assert book.observe("b", Fence(1, 2)) is None
    assert (prepared.stream, prepared.phase, prepared.fence) == (None, Phase.PREPARED, Fence(1, 2))
    assert book.observe("b", Fence(2, 1)) is prepared
    assert prepared.phase is Phase.WITHDRAWN
    assert book.begin("b", Fence(2, 1), may_prepare=True).prepared


def test_a_prepared_attempt_that_nobody_follows_expires_and_one_that_started_does_not() -> None:
    book = AttemptBook(GRACE)
    running = begin(book, "a", 1, 1)
    prepared = begin(book, "b", 1, 1)
    book.detach(prepared, book.attach(prepared), now=10.0)
    assert book.expire(now=609.0) == []
    assert book.expire(now=610.0) == [prepared]
    assert prepared.phase is Phase.WITHDRAWN
    again = begin(book, "b", 1, 1)
    book.detach(again, book.attach(again), now=620.0)
    book.end(running, now=620.0)
    book.detach(running, book.attach(running), now=620.0)
    assert book.start_next() is again
    assert book.expire(now=1e9) == [running]


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
