from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest
import torch

from wan22_inference.engine.loading.buffers import Buffer, BufferRing, Filled
from wan22_inference.engine.loading.contents import Contents
from wan22_inference.engine.loading.plan import Batch
from wan22_inference.engine.loading.spent import Clock
from wan22_inference.engine.loading.streams import Mark


class SlowMark(Mark):
    """Is passed when somebody says so."""

    def __init__(self) -> None:
        self.waited, self.passed = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.waited.set()
        assert self.passed.wait(60)


def make() -> Buffer:
    return Buffer(torch.zeros(8, dtype=torch.uint8))


def ring(most: int = 2, readers: int = 1, buffers: list[Buffer] | None = None) -> BufferRing:
    return BufferRing([] if buffers is None else buffers, make, most, readers)


def filled(buffer: Buffer | None) -> Filled:
    assert buffer is not None
    return Filled(buffer, cast("Batch", None), cast("Contents", None))


def test_buffers_are_made_as_they_are_needed_and_go_round() -> None:
    buffers: list[Buffer] = []
    one = ring(most=2, buffers=buffers)
    first = one.take(Clock())
    assert buffers == [first]
    second = one.take(Clock())
    assert buffers == [first, second]
    one.fill(filled(first))
    found = one.next(None)
    assert found is not None
    assert found.buffer is first
    assert one.next(0) is found  # until it is given back
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(one.take, Clock())
        one.give_back(Mark(None))
        assert taking.result(timeout=60) is first
    assert len(buffers) == 2
    again = ring(most=2, buffers=buffers)
    assert {again.take(Clock()), again.take(Clock())} == {first, second}


def test_a_buffer_is_read_into_once_its_copy_has_passed() -> None:
    one, copied = ring(most=1), SlowMark()
    one.fill(filled(one.take(Clock())))
    one.next(None)
    one.give_back(copied)
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(one.take, Clock())
        assert copied.waited.wait(60)
        assert not taking.done()
        copied.passed.set()
        assert taking.result(timeout=60) is not None


def test_it_is_at_its_end_when_all_readers_are_and_all_is_taken() -> None:
    one = ring(most=3, readers=2)
    one.fill(filled(one.take(Clock())))
    one.end()
    assert one.next(None) is not None
    assert not one.is_at_end
    one.give_back(Mark(None))
    assert one.next(0) is None
    assert not one.is_at_end
    assert one.next(0.001) is None
    one.end()
    assert one.next(None) is None
    assert one.is_at_end
    assert not one.is_closed


@pytest.mark.parametrize("waiting", [1, 3])
def test_closing_ends_all_who_wait(waiting: int) -> None:
    one = ring(most=1, readers=waiting)
    one.take(Clock())
    with ThreadPoolExecutor(waiting + 1) as pool:
        takers = [pool.submit(one.take, Clock()) for _ in range(waiting)]
        emptying = pool.submit(one.next, None)
        one.close()
        assert [taker.result(timeout=60) for taker in takers] == [None] * waiting
        assert emptying.result(timeout=60) is None
    assert one.is_closed
    assert one.is_at_end
    assert one.take(Clock()) is None


def test_what_is_filled_is_not_given_out_of_a_closed_ring() -> None:
    one = ring()
    one.fill(filled(one.take(Clock())))
    one.close()
    assert one.next(None) is None
