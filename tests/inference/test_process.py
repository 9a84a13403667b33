"""The worker as a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from wan22.parameters import Parameters
from wan22.recipe import Recipe
from wan22.v1 import inference_pb2 as pb
from wan22_inference.settings import WorkerSettings

from .calls import attempt, to_the_end, until_step, video_of
from .worker_kinds import WorkerKind

FAMILY = "ti2v-5b"
Make = Callable[..., Parameters]


async def test_another_process_and_another_attempt_give_the_same_bytes(
    kind: WorkerKind, tmp_path: Path, parameters: Make
) -> None:
    chosen = parameters(kind.variant(FAMILY), num_frames=9)
    async with kind.process(tmp_path, FAMILY) as (worker, caller):
        events = await to_the_end(caller.generate(chosen, attempt(1)))
        await caller.release(attempt(1))
        retried = video_of(await to_the_end(caller.generate(chosen, attempt(1, number=2, epoch=3))))
        other = video_of(await to_the_end(caller.generate(chosen, attempt(2))))
        before = await caller.worker()
        worker.kill()
        worker.start()
        await worker.until()
        again = video_of(await to_the_end(caller.generate(chosen, attempt(1, number=3))))
        after = await caller.worker()
    recipe = Recipe.from_json(events[-1].finished.recipe)
    assert recipe == Recipe.make(kind.variant(FAMILY), before.model_version, chosen, dict(before.numerics))
    assert video_of(events) == retried == other == again == kind.render(chosen, recipe, tmp_path / "here.mp4")
    assert (before.name, before.uid) == (after.name, after.uid) == ("workers/one", "slot-1")
    assert before.incarnation != after.incarnation
    assert [held.attempt for held in before.attempts] == [attempt(1, number=2, epoch=3), attempt(2)]
    assert [held.attempt for held in after.attempts] == [attempt(1, number=3)]


async def test_a_terminated_worker_waits_for_its_attempt_and_its_release(
    kind: WorkerKind, tmp_path: Path, parameters: Make
) -> None:
    chosen = parameters(kind.variant(FAMILY), width=128, height=128, num_inference_steps=60)
    async with kind.process(tmp_path, FAMILY) as (worker, caller):
        stream = caller.generate(chosen, attempt())
        await until_step(stream, 1)
        stopping = asyncio.create_task(asyncio.to_thread(worker.stop, 60.0))
        events = await to_the_end(stream)
        assert events[-1].HasField("finished")
        assert (await caller.worker()).state == pb.Worker.DRAINING
        assert worker.running
        await caller.release(attempt())
        assert await stopping == 0
    assert [path for path in (tmp_path / "scratch" / "one").iterdir() if path.is_dir()] == []


async def test_a_terminated_worker_that_holds_nothing_ends_at_once(kind: WorkerKind, tmp_path: Path) -> None:
    async with kind.process(tmp_path, FAMILY) as (worker, _):
        assert await asyncio.to_thread(worker.stop, 20.0) == 0


async def test_a_terminated_worker_waits_no_longer_than_its_drain_time(
    kind: WorkerKind, tmp_path: Path, parameters: Make
) -> None:
    async with kind.process(tmp_path, FAMILY, drain_seconds=0.2) as (worker, caller):
        await to_the_end(caller.generate(parameters(kind.variant(FAMILY)), attempt()))  # never released
        assert await asyncio.to_thread(worker.stop, 20.0) == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--pool", "pools/a.b"], "--model (WAN22_WORKER_MODEL)"),
        (["--pool", "here", "--model", "m"], "--pool (WAN22_WORKER_POOL) is 'here': use pools/{namespace}"),
        (
            ["--pool", "pools/a.b", "--model", "M!"],
            "--model (WAN22_WORKER_MODEL) is 'M!': use MODEL[:TAG]",
        ),
        (["--pool", "pools/a.b", "--model", "m", "--threads", "0"], "--threads (WAN22_WORKER_THREADS) is '0'"),
    ],
)
def test_a_bad_setting_stops_the_process_and_is_named(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        WorkerSettings.load("wan22_inference", flags)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
