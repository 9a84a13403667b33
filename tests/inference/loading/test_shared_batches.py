from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest
import torch

from wan22_inference.engine.loading.plan import Batch
from wan22_inference.engine.loading.shared_batches import AHEAD, SharedBatches
from wan22_inference.engine.loading.streams import Stream


def numbers(count: int, made: list[int] | None = None) -> Iterator[Batch]:
    """Stand for batches, which nobody looks into here."""
    for number in range(count):
        if made is not None:
            made.append(number)
        yield cast("Batch", number)


def shared(batches: Iterator[Batch]) -> SharedBatches:
    return SharedBatches(batches, Stream(torch.device("cpu")))


def test_each_batch_is_taken_once_by_several_threads() -> None:
    batches = shared(numbers(200))
    with ThreadPoolExecutor(5) as pool:
        making = pool.submit(batches.make)
        takers = [pool.submit(lambda: [cast("int", batch) for batch in batches]) for _ in range(4)]
        making.result(timeout=60)
        taken = [taker.result(timeout=60) for taker in takers]
    assert sorted(number for some in taken for number in some) == list(range(200))
    assert all(some == sorted(some) for some in taken)


def test_no_more_than_some_are_made_ahead_and_a_close_ends_maker_and_takers() -> None:
    made: list[int] = []
    batches = shared(numbers(100, made))
    maker = threading.Thread(target=batches.make)
    maker.start()
    taking = iter(batches)
    assert [cast("int", next(taking)) for _ in range(3)] == [0, 1, 2]
    batches.close()
    maker.join(timeout=60)
    assert not maker.is_alive()
    assert list(taking) == []
    assert 3 <= len(made) <= 3 + AHEAD + 1  # one more is at hand, and finds no room


def test_what_making_raises_shows_and_takers_end() -> None:
    def broken() -> Iterator[Batch]:
        yield from numbers(1)
        raise OSError("no memory on the device")

    batches = shared(broken())
    with ThreadPoolExecutor(2) as pool:
        making = pool.submit(batches.make)
        taking = pool.submit(lambda: list(batches))
        with pytest.raises(OSError, match="no memory on the device"):
            making.result(timeout=60)
        assert len(taking.result(timeout=60)) <= 1
