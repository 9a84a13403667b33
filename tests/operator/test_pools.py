from __future__ import annotations

import asyncio

from wan22_operator.cluster import ApiFailure
from wan22_operator.memory import Memory
from wan22_operator.metrics import Metrics
from wan22_operator.names import PoolKey
from wan22_operator.pools import Pools

from .observing import KEY

LONG = 3600.0
"""Seconds: no round comes by itself."""


class Rounds:
    """Rounds that a test lets go on, one by one."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[PoolKey] = asyncio.Queue()
        self.results: asyncio.Queue[bool | Exception] = asyncio.Queue()
        self.at_once = 0
        self.most = 0

    async def __call__(self, key: PoolKey, memory: Memory) -> bool:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.begun.put_nowait(key)
        result = await self.results.get()
        self.at_once -= 1
        if isinstance(result, Exception):
            raise result
        return result


async def test_a_pool_is_looked_at_once_at_a_time_and_again_when_it_was_woken_meanwhile() -> None:
    rounds = Rounds()
    async with asyncio.timeout(60), Pools("WanPool", rounds, LONG, Metrics()) as pools:
        pools.wake(KEY)
        await rounds.begun.get()
        for _ in range(5):
            pools.wake(KEY)
        rounds.results.put_nowait(True)
        await rounds.begun.get()
        rounds.results.put_nowait(True)
        await asyncio.sleep(0)
        assert rounds.begun.empty()
        assert rounds.most == 1


async def test_a_round_comes_by_itself() -> None:
    rounds = Rounds()
    async with asyncio.timeout(60), Pools("WanPool", rounds, 0.01, Metrics()) as pools:
        pools.wake(KEY)
        for _ in range(3):
            await rounds.begun.get()
            rounds.results.put_nowait(True)


async def test_a_round_that_fails_is_tried_again_and_a_fault_in_one_pool_stops_no_other() -> None:
    rounds, metrics = Rounds(), Metrics()
    other = PoolKey("videos", "other")
    async with asyncio.timeout(60), Pools("WanPool", rounds, LONG, metrics) as pools:
        for failure in (ApiFailure(500, "InternalError", "etcd is away"), ValueError("a fault of ours")):
            pools.wake(KEY)
            await rounds.begun.get()
            rounds.results.put_nowait(failure)
            assert await rounds.begun.get() == KEY
            pools.wake(other)
            assert await rounds.begun.get() == other
            rounds.results.put_nowait(True)
            rounds.results.put_nowait(True)
            pools.wake(KEY)
            await rounds.begun.get()
            rounds.results.put_nowait(True)
    failures = {
        reason: metrics.registry.get_sample_value("wan22_operator_round_failures_total", {"reason": reason})
        for reason in ("InternalError", "Fault")
    }
    assert failures == {"InternalError": 1, "Fault": 1}


async def test_a_loop_ends_with_its_pool_and_begins_anew_when_it_comes_back() -> None:
    rounds = Rounds()
    async with asyncio.timeout(60), Pools("WanPool", rounds, LONG, Metrics()) as pools:
        pools.wake(KEY)
        await rounds.begun.get()
        rounds.results.put_nowait(False)
        while pools.keys:  # noqa: ASYNC110  # the end of a loop has no event
            await asyncio.sleep(0)
        pools.wake_known(KEY)
        assert pools.keys == frozenset()
        pools.wake(KEY)
        await rounds.begun.get()
        assert pools.keys == {KEY}


async def test_a_loop_rests_for_as_long_as_its_round_took_so_that_many_events_are_one_round() -> None:
    rounds = Rounds()
    async with asyncio.timeout(60), Pools("WanPool", rounds, LONG, Metrics()) as pools:
        pools.wake(KEY)
        await rounds.begun.get()
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(0.2)
        rounds.results.put_nowait(True)
        await asyncio.sleep(0)
        for _ in range(20):
            pools.wake(KEY)
            await asyncio.sleep(0.005)
        await rounds.begun.get()
        assert asyncio.get_running_loop().time() - began >= 0.39
        assert rounds.begun.empty()
