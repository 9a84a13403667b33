"""Checkpoints leave a worker while it computes, and another one goes on from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wan22.errors import DataLoss, FailedPrecondition, InvalidRequest, Reason
from wan22.parameters import Parameters
from wan22.recipe import Recipe, numerics_digest
from wan22.v1 import inference_pb2 as pb

from .calls import (
    attempt,
    checkpoints_of,
    error_of,
    kinds,
    serving,
    to_the_end,
    until,
    video_of,
)
from .conftest import Registry

Make = Callable[..., Parameters]
VARIANT = "t2v-a14b-tiny"
STEPS = 12


async def test_a_video_resumed_on_another_worker_is_the_undisturbed_one(
    registry: Registry, tmp_path: Path, parameters: Make
) -> None:
    version, chosen = await registry.version(VARIANT), parameters(VARIANT, num_inference_steps=STEPS)
    async with serving(tmp_path / "a", registry.address, version, checkpoint_seconds=0) as (service, caller):
        await until(service, lambda: service.worker.ready)
        whole = await to_the_end(caller.generate(chosen, attempt(1)))
    taken = checkpoints_of(whole)
    assert len(taken) >= 2
    step, (announced, data) = max(taken.items())
    assert (announced.size_bytes, 0 < step < STEPS) == (len(data), True)
    async with serving(tmp_path / "b", registry.address, version, checkpoint_seconds=0) as (service, caller):
        await until(service, lambda: service.worker.ready)
        assert (await caller.worker()).numerics_digest == announced.numerics_digest
        again = await to_the_end(caller.generate(chosen, attempt(1, number=2), checkpoint=data, resume=announced))
    assert video_of(again) == video_of(whole)
    steps = [event.progress.step for event in again if event.progress.HasField("step")]
    assert steps == list(range(step, STEPS + 1))
    assert min(checkpoints_of(again), default=STEPS) > step


async def test_what_the_caller_has_is_not_sent_again(registry: Registry, tmp_path: Path, parameters: Make) -> None:
    version, chosen = await registry.version(VARIANT), parameters(VARIANT, num_inference_steps=3)
    async with serving(tmp_path, registry.address, version, checkpoint_seconds=0) as (service, caller):
        await until(service, lambda: service.worker.ready)
        events = await to_the_end(caller.generate(chosen, attempt(1), checkpoint_step=2))
    assert "checkpoint" not in kinds(events)


async def test_the_recipe_comes_with_the_video(registry: Registry, tmp_path: Path, parameters: Make) -> None:
    version, chosen = await registry.version(VARIANT), parameters(VARIANT, num_inference_steps=2, omit_prompt=True)
    async with serving(tmp_path, registry.address, version) as (service, caller):
        await until(service, lambda: service.worker.ready)
        events = await to_the_end(caller.generate(chosen, attempt(1)))
        numerics = dict((await caller.worker()).numerics)
    recipe = Recipe.from_json(events[-1].finished.recipe)
    assert recipe == Recipe.make(VARIANT, version, chosen, numerics)
    assert numerics["option threads"] == "1"
    video = video_of(events)
    assert recipe.without_texts().to_json().encode() in video
    assert chosen.prompt.encode() not in video


async def test_a_checkpoint_of_other_numerics_is_refused(registry: Registry, tmp_path: Path, parameters: Make) -> None:
    version, chosen = await registry.version(VARIANT), parameters(VARIANT)
    async with serving(tmp_path, registry.address, version) as (service, caller):
        await until(service, lambda: service.worker.ready)
        resume = pb.Checkpoint(step=1, size_bytes=10, digest="sha256:" + "0" * 64, numerics_digest="sha256:other")
        error = await error_of(caller.generate(chosen, attempt(1), resume=resume))
        assert isinstance(error, FailedPrecondition)
        assert error.reason is Reason.OTHER_NUMERICS
        assert not (await caller.worker()).attempts


@pytest.mark.parametrize("data", [b"", b"short", b"0123456789", b"01234567890"])
async def test_a_damaged_checkpoint_is_refused(
    registry: Registry, tmp_path: Path, parameters: Make, data: bytes
) -> None:
    version, chosen = await registry.version(VARIANT), parameters(VARIANT)
    async with serving(tmp_path, registry.address, version) as (service, caller):
        await until(service, lambda: service.worker.ready)
        resume = pb.Checkpoint(
            step=1,
            size_bytes=10,
            digest="sha256:" + "0" * 64,
            numerics_digest=numerics_digest(service.worker.weights.numerics),
        )
        error = await error_of(caller.generate(chosen, attempt(1), checkpoint=data, resume=resume))
        assert isinstance(error, InvalidRequest if len(data) > 10 else DataLoss)
        assert not (await caller.worker()).attempts


@pytest.mark.parametrize(("step", "size"), [(0, 10), (40, 10), (1, 0), (1, 1 << 40)])
async def test_an_impossible_checkpoint_names_its_field(
    registry: Registry, tmp_path: Path, parameters: Make, step: int, size: int
) -> None:
    version, chosen = await registry.version(VARIANT), parameters(VARIANT, num_inference_steps=40)
    async with serving(tmp_path, registry.address, version) as (service, caller):
        await until(service, lambda: service.worker.ready)
        resume = pb.Checkpoint(step=step, size_bytes=size, digest="sha256:" + "0" * 64)
        error = await error_of(caller.generate(chosen, attempt(1), resume=resume))
        assert isinstance(error, InvalidRequest)
        assert "start.resume" in error.message
