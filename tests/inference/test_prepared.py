"""One generation prepared beside the running one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from wan22.errors import Aborted, Reason, Unavailable
from wan22.parameters import Parameters
from wan22.v1 import inference_pb2 as pb

from .calls import Caller, attempt, error_of, kinds, to_the_end, until_step, video_of
from .worker_kinds import WorkerKind

Make = Callable[..., Parameters]


@asynccontextmanager
async def busy_worker(
    kind: WorkerKind, folder: Path, long: Parameters
) -> AsyncIterator[tuple[Caller, AsyncIterator[pb.GenerateEvent]]]:
    """A worker whose attempt of generation 1 denoises, and that attempt's stream."""
    async with kind.ready(folder) as (_, caller):
        running = caller.generate(long, attempt(1))
        await until_step(running, 1)
        yield caller, running


async def test_a_second_generation_is_prepared_and_starts_when_the_first_ends_with_the_same_bytes(
    kind: WorkerKind, tmp_path: Path, long: Parameters, short: Make
) -> None:
    chosen = short(prompt="a dog that was never seen", seed=3)
    async with busy_worker(kind, tmp_path, long) as (caller, running):
        prepared = caller.generate(chosen, attempt(2), may_prepare=True)
        first = await anext(prepared)
        assert first.prepared.parameters_digest == chosen.digest
        worker = await caller.worker()
        assert worker.state == pb.Worker.BUSY
        assert first.prepared.incarnation == worker.incarnation
        assert [(h.attempt, h.running, h.prepared) for h in worker.attempts] == [
            (attempt(1), True, False),
            (attempt(2), False, True),
        ]
        refused = await error_of(caller.generate(chosen, attempt(3), may_prepare=True))
        assert isinstance(refused, Unavailable)
        assert refused.reason is Reason.WORKER_BUSY
        one, two = await asyncio.gather(to_the_end(running), to_the_end(prepared))
        assert (kinds(one)[-1], kinds(two)[0], kinds(two)[-1]) == ("finished", "accepted", "finished")
        for alone, beside in ((long, one), (chosen, two)):
            again = await to_the_end(caller.generate(alone, attempt(4 if alone is long else 5)))
            assert video_of(again) == video_of(beside)


async def test_a_prepared_attempt_is_cancelled_at_once_and_may_come_again(
    kind: WorkerKind, tmp_path: Path, long: Parameters, short: Make
) -> None:
    async with busy_worker(kind, tmp_path, long) as (caller, running):
        for _ in range(2):
            prepared = caller.generate(short(), attempt(2), may_prepare=True)
            assert kinds([await anext(prepared)]) == ["prepared"]
            await caller.cancel(attempt(2))
            assert kinds(await to_the_end(prepared)) == ["cancelled"]
        assert [held.attempt for held in (await caller.worker()).attempts] == [attempt(1)]
        assert kinds(await to_the_end(running))[-1] == "finished"


async def test_a_draining_worker_gives_the_prepared_attempt_back_and_finishes_the_running_one(
    kind: WorkerKind, tmp_path: Path, long: Parameters, short: Make
) -> None:
    async with busy_worker(kind, tmp_path, long) as (caller, running):
        prepared = caller.generate(short(), attempt(2), may_prepare=True)
        await anext(prepared)
        await caller.drain()
        given_back = await error_of(prepared)
        assert isinstance(given_back, Unavailable)
        assert given_back.reason is Reason.WORKER_DRAINING
        assert [held.attempt for held in (await caller.worker()).attempts] == [attempt(1)]
        assert kinds(await to_the_end(running))[-1] == "finished"


async def test_a_newer_owner_takes_the_prepared_attempt_over(
    kind: WorkerKind, tmp_path: Path, long: Parameters, short: Make
) -> None:
    chosen = short()
    async with busy_worker(kind, tmp_path, long) as (caller, running):
        old = caller.generate(chosen, attempt(2, epoch=1), may_prepare=True)
        await anext(old)
        new = caller.generate(chosen, attempt(2, epoch=2), may_prepare=True)
        assert kinds([await anext(new)]) == ["prepared"]
        assert isinstance(await error_of(old), Aborted)
        await to_the_end(running)
        assert kinds(await to_the_end(new))[-1] == "finished"


async def test_the_prepared_attempt_starts_after_a_cancel_of_the_running_one_and_when_nobody_follows_it(
    kind: WorkerKind, tmp_path: Path, long: Parameters, short: Make
) -> None:
    chosen = short()
    async with busy_worker(kind, tmp_path, long) as (caller, running):
        prepared = caller.generate(chosen, attempt(2), may_prepare=True)
        await anext(prepared)
        await prepared.aclose()  # type: ignore[attr-defined]  # an async generator
        await caller.cancel(attempt(1))
        assert kinds(await to_the_end(running))[-1] == "cancelled"
        events = await to_the_end(caller.generate(chosen, attempt(2), may_prepare=True))
        assert (kinds(events)[0], kinds(events)[-1]) == ("accepted", "finished")


async def test_what_cannot_be_prepared_fails_when_its_turn_comes_and_hurts_nobody(
    kind: WorkerKind, tmp_path: Path, long: Parameters, short: Make
) -> None:
    async with busy_worker(kind, tmp_path, long) as (caller, running):
        prepared = caller.generate(short(prompt="x " * 600), attempt(2), may_prepare=True)
        await anext(prepared)
        one, two = await asyncio.gather(to_the_end(running), to_the_end(prepared))
        assert kinds(one)[-1] == "finished"
        assert [told for told in kinds(two) if told != "progress"] == ["accepted", "failed"]
