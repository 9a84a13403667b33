from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest

from wan22_inference.engine.loading.group_decoder import GroupDecoder, Outcome, Prepared
from wan22_inference.engine.loading.launches import Launches
from wan22_inference.engine.loading.spent import Step
from wan22_inference.engine.loading.streams import Stream


class Decoder:
    """Stands for GroupDecoder: begins when it may, and breaks where it is told to."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.may = threading.Event()
        self._breaks = breaks

    def decode(self, prepared: int, _: Stream) -> int:
        assert self.may.wait(60)
        if self._breaks:
            raise RuntimeError("nvCOMP refused")
        return prepared


def launches_of(*decoders: Decoder) -> Launches:
    launches = Launches(cast("Stream", None))
    for number, decoder in enumerate(decoders):
        launches.give(cast("GroupDecoder", decoder), cast("Prepared", number))
    launches.end()
    return launches


def test_groups_are_launched_in_their_order_and_who_wants_to_know_is_told() -> None:
    first, second = Decoder(), Decoder()
    launches = launches_of(first, second)
    with ThreadPoolExecutor(2) as pool:
        running, waiting = pool.submit(launches.run), pool.submit(launches.wait_for, 1)
        assert not waiting.done()
        first.may.set()
        waiting.result(timeout=60)
        assert launches.outcomes == [cast("Outcome", 0)]
        second.may.set()
        assert set(running.result(timeout=60).spent) == {Step.IDLING, Step.LAUNCHING}
    assert launches.outcomes == [cast("Outcome", 0), cast("Outcome", 1)]


def test_nobody_waits_for_what_will_not_be_launched() -> None:
    broken = Decoder(breaks=True)
    launches = launches_of(broken, Decoder())
    with ThreadPoolExecutor(2) as pool:
        running, waiting = pool.submit(launches.run), pool.submit(launches.wait_for, 2)
        broken.may.set()
        waiting.result(timeout=60)
        with pytest.raises(RuntimeError, match="nvCOMP refused"):
            running.result(timeout=60)
    assert launches.outcomes == []
