"""The worker as a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from wan22.parameters import Parameters
from wan22.recipe import Recipe
from wan22.v1 import inference_pb2 as pb
from wan22_inference.engine.generate import Run, generate
from wan22_inference.engine.model import Model
from wan22_inference.settings import WorkerSettings
from wan22_testing.service_process import ServiceProcess

from .calls import Caller, attempt, calling, to_the_end, until_step, video_of
from .conftest import Registry

VARIANT = "ti2v-5b-tiny"


@asynccontextmanager
async def process(folder: Path, registry: Registry, **flags: Any) -> AsyncIterator[tuple[ServiceProcess, Caller]]:
    version = await registry.version(VARIANT)
    started = ServiceProcess(
        "wan22_inference",
        folder / "worker.log",
        name="workers/one",
        uid="slot-1",
        pool="pools/test.pool",
        registry=registry.address,
        model=version,
        cache=folder / "cache",
        scratch=folder / "scratch",
        device="cpu",
        **flags,
    )
    started.start()
    try:
        await started.until()
        async with calling(started.address, version) as caller:
            yield started, caller
    finally:
        if started.running:
            started.kill()


async def test_another_process_and_another_attempt_give_the_same_bytes(
    registry: Registry, tmp_path: Path, parameters: Callable[..., Parameters], tiny_model: Callable[[str], Model]
) -> None:
    chosen = parameters(VARIANT, num_frames=9)
    async with process(tmp_path, registry) as (worker, caller):
        first = video_of(await to_the_end(caller.generate(chosen, attempt(1))))
        await caller.release(attempt(1))
        retried = video_of(await to_the_end(caller.generate(chosen, attempt(1, number=2, epoch=3))))
        other = video_of(await to_the_end(caller.generate(chosen, attempt(2))))
        before = await caller.worker()
        recipe = Recipe.make(VARIANT, before.model_version, chosen, dict(before.numerics))
        worker.kill()
        worker.start()
        await worker.until()
        again = video_of(await to_the_end(caller.generate(chosen, attempt(1, number=3))))
        after = await caller.worker()
    here = tmp_path / "here.mp4"
    generate(tiny_model(VARIANT), chosen, {}, here, Run(report=lambda _: None, should_stop=lambda: False), recipe)
    assert first == retried == other == again == here.read_bytes()
    assert (before.name, before.uid) == (after.name, after.uid) == ("workers/one", "slot-1")
    assert before.incarnation != after.incarnation
    assert [held.attempt for held in before.attempts] == [attempt(1, number=2, epoch=3), attempt(2)]
    assert [held.attempt for held in after.attempts] == [attempt(1, number=3)]


async def test_a_terminated_worker_waits_for_its_attempt_and_its_release(
    registry: Registry, tmp_path: Path, parameters: Callable[..., Parameters]
) -> None:
    chosen = parameters(VARIANT, width=128, height=128, num_inference_steps=60)
    async with process(tmp_path, registry) as (worker, caller):
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


async def test_a_terminated_worker_that_holds_nothing_ends_at_once(registry: Registry, tmp_path: Path) -> None:
    async with process(tmp_path, registry) as (worker, _):
        assert await asyncio.to_thread(worker.stop, 20.0) == 0


async def test_a_terminated_worker_waits_no_longer_than_its_drain_time(
    registry: Registry, tmp_path: Path, parameters: Callable[..., Parameters]
) -> None:
    async with process(tmp_path, registry, drain_seconds=0.2) as (worker, caller):
        await to_the_end(caller.generate(parameters(VARIANT), attempt()))  # never released
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
