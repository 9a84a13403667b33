"""Checkpoints leave a worker while it computes, and another one goes on from them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from wan22.errors import DataLoss, FailedPrecondition, InvalidRequest, Reason
from wan22.parameters import Parameters
from wan22.recipe import Recipe, numerics_digest
from wan22.v1 import inference_pb2 as pb

from .calls import (
    attempt,
    checkpoints_of,
    error_of,
    kinds,
    to_the_end,
    video_of,
)
from .worker_kinds import WorkerKind

Make = Callable[..., Parameters]
STEPS = 12


async def test_a_video_resumed_on_another_worker_is_the_undisturbed_one(
    kind: WorkerKind, tmp_path: Path, short: Make
) -> None:
    chosen = short(num_inference_steps=STEPS)
    async with kind.ready(tmp_path / "a", checkpoint_seconds=0) as (_, caller):
        whole = await to_the_end(caller.generate(chosen, attempt(1)))
    taken = checkpoints_of(whole)
    assert len(taken) >= 2
    step, (announced, data) = max(taken.items())
    assert (announced.size_bytes, 0 < step < STEPS) == (len(data), True)
    async with kind.ready(tmp_path / "b", checkpoint_seconds=0) as (_, caller):
        assert (await caller.worker()).numerics_digest == announced.numerics_digest
        again = await to_the_end(caller.generate(chosen, attempt(1, number=2), checkpoint=data, resume=announced))
    assert video_of(again) == video_of(whole)
    steps = [event.progress.step for event in again if event.progress.HasField("step")]
    assert steps == list(range(step, STEPS + 1))
    assert min(checkpoints_of(again), default=STEPS) > step


async def test_what_the_caller_has_is_not_sent_again(kind: WorkerKind, tmp_path: Path, short: Make) -> None:
    chosen = short(num_inference_steps=3)
    async with kind.ready(tmp_path, checkpoint_seconds=0) as (_, caller):
        events = await to_the_end(caller.generate(chosen, attempt(1), checkpoint_step=2))
    assert "checkpoint" not in kinds(events)


async def test_the_recipe_comes_with_the_video(kind: WorkerKind, tmp_path: Path, short: Make) -> None:
    chosen = short(num_inference_steps=2, omit_prompt=True)
    async with kind.ready(tmp_path) as (_, caller):
        events = await to_the_end(caller.generate(chosen, attempt(1)))
        numerics = dict((await caller.worker()).numerics)
    recipe = Recipe.from_json(events[-1].finished.recipe)
    assert recipe == Recipe.make(kind.variant("t2v-a14b"), await kind.version("t2v-a14b"), chosen, numerics)
    assert numerics["option threads"] == "1"
    video = video_of(events)
    assert recipe.without_texts().to_json().encode() in video
    assert chosen.prompt.encode() not in video


async def test_a_checkpoint_of_other_numerics_is_refused(kind: WorkerKind, tmp_path: Path, short: Make) -> None:
    chosen = short()
    async with kind.ready(tmp_path) as (_, caller):
        resume = pb.Checkpoint(step=1, size_bytes=10, digest="sha256:" + "0" * 64, numerics_digest="sha256:other")
        error = await error_of(caller.generate(chosen, attempt(1), resume=resume))
        assert isinstance(error, FailedPrecondition)
        assert error.reason is Reason.OTHER_NUMERICS
        assert not (await caller.worker()).attempts


async def test_a_damaged_checkpoint_is_refused(kind: WorkerKind, tmp_path: Path, short: Make) -> None:
    async with kind.ready(tmp_path) as (service, caller):
        numerics = numerics_digest(service.worker.renderer.numerics)
        resume = pb.Checkpoint(step=1, size_bytes=10, digest="sha256:" + "0" * 64, numerics_digest=numerics)
        for data in (b"", b"short", b"0123456789", b"01234567890"):
            error = await error_of(caller.generate(short(), attempt(1), checkpoint=data, resume=resume))
            assert isinstance(error, InvalidRequest if len(data) > 10 else DataLoss)
        resume.digest = f"sha256:{hashlib.sha256(b'0123456789').hexdigest()}"
        unreadable = await error_of(caller.generate(short(), attempt(1), checkpoint=b"0123456789", resume=resume))
        assert isinstance(unreadable, DataLoss)
        assert unreadable.reason is Reason.DAMAGED_CHECKPOINT
        assert not (await caller.worker()).attempts


async def test_an_impossible_checkpoint_names_its_field(kind: WorkerKind, tmp_path: Path, short: Make) -> None:
    chosen = short(num_inference_steps=40)
    async with kind.ready(tmp_path) as (_, caller):
        for step, size in [(0, 10), (40, 10), (1, 0), (1, 1 << 40)]:
            resume = pb.Checkpoint(step=step, size_bytes=size, digest="sha256:" + "0" * 64)
            error = await error_of(caller.generate(chosen, attempt(1), resume=resume))
            assert isinstance(error, InvalidRequest)
            assert "start.resume" in error.message
