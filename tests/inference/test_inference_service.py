from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wan22.errors import (
    Aborted,
    DataLoss,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    OutOfRange,
    Reason,
    Unavailable,
)
from wan22.parameters import Parameters
from wan22.recipe import Recipe
from wan22.status import from_status
from wan22.v1 import generation_pb2
from wan22.v1 import inference_pb2 as pb
from wan22_inference.inference_servicer import _video
from wan22_inference.jobs import Finished

from .calls import attempt, error_of, kinds, to_the_end, until, until_step, video_of
from .worker_kinds import WorkerKind

Make = Callable[..., Parameters]


async def test_a_generation_streams_its_stages_and_then_its_video(
    kind: WorkerKind, tmp_path: Path, short: Make
) -> None:
    chosen = short(num_inference_steps=4)
    async with kind.ready(tmp_path) as (service, caller):
        events = await to_the_end(caller.generate(chosen, attempt()))
    assert events[0].accepted.parameters_digest == chosen.digest
    assert events[0].accepted.incarnation == service.worker.identity.incarnation
    stages = generation_pb2.Progress
    assert [event.progress for event in events if event.HasField("progress")] == [
        stages(stage=stages.ENCODING_TEXT),
        *(stages(stage=stages.DENOISING, step=step, num_steps=4) for step in range(5)),
        stages(stage=stages.DECODING),
    ]
    assert kinds(events)[-2:] == ["video_chunk", "finished"]
    video = video_of(events)
    assert events[-1].finished.video.size_bytes == len(video)
    assert events[-1].finished.video.digest == f"sha256:{hashlib.sha256(video).hexdigest()}"
    assert events[-1].finished.compute_seconds > 0
    recipe = Recipe.from_json(events[-1].finished.recipe)
    assert video == kind.render(chosen, recipe, tmp_path / "direct.mp4")


async def test_images_come_with_the_call(
    kind: WorkerKind, tmp_path: Path, parameters: Make, picture: Callable[..., tuple[str, bytes]]
) -> None:
    (first, png), (last, other) = picture(1), picture(2)
    chosen = parameters(kind.variant("i2v-a14b"), image=first, last_image=last)
    async with kind.ready(tmp_path, "i2v-a14b") as (_, caller):
        missing = await error_of(caller.generate(chosen, attempt(), {first: png}))
        damaged = await error_of(caller.generate(chosen, attempt(), {first: png, last: other[:-1]}))
        unnamed = await error_of(caller.generate(chosen, attempt(), {"media/x": png}))
        assert (await caller.worker()).state == pb.Worker.IDLE
        events = await to_the_end(caller.generate(chosen, attempt(), {first: png, last: other}))
    assert isinstance(missing, InvalidRequest)
    assert f"last_image is {last}, but no input_chunk" in missing.message
    assert isinstance(damaged, DataLoss)
    assert damaged.reason is Reason.DIGEST_MISMATCH
    assert isinstance(unnamed, InvalidRequest)
    assert "input_chunk.media is 'media/x'" in unnamed.message
    assert kinds(events)[-1] == "finished"
    assert generation_pb2.Progress.ENCODING_IMAGE in [event.progress.stage for event in events]


async def test_the_end_of_a_stream_stops_nothing_and_a_new_one_gets_all_the_rest(
    kind: WorkerKind, tmp_path: Path, long: Parameters
) -> None:
    async with kind.ready(tmp_path) as (_, caller):
        first = caller.generate(long, attempt())
        await until_step(first, 2)
        await first.aclose()  # type: ignore[attr-defined]  # an async generator
        running = (await caller.worker()).attempts
        assert [(held.attempt, held.running) for held in running] == [(attempt(), True)]
        second = await to_the_end(caller.generate(long, attempt()))
        assert second[0].HasField("accepted")
        steps = [event.progress.step for event in second if event.progress.HasField("step")]
        assert steps[0] >= 2
        assert steps == list(range(steps[0], 101))  # the current one, then each one
        video = video_of(second)

        # After the end: accepted, the last progress, the video from an offset, finished; as often as wanted.
        for _ in range(2):
            again = await to_the_end(caller.generate(long, attempt(), video_offset=1000))
            assert kinds(again) == ["accepted", "progress", "video_chunk", "finished"]
            assert again[2].video_chunk.offset == 1000
            assert video_of(again) == video[1000:]
        whole = await to_the_end(caller.generate(long, attempt(), video_offset=len(video)))
        assert kinds(whole) == ["accepted", "progress", "finished"]
        beyond = await error_of(caller.generate(long, attempt(), video_offset=len(video) + 1))
        assert isinstance(beyond, OutOfRange)


async def test_a_cancel_takes_effect_at_the_next_step_and_frees_the_worker(
    kind: WorkerKind, tmp_path: Path, long: Parameters, short: Make
) -> None:
    async with kind.ready(tmp_path) as (_, caller):
        stream = caller.generate(long, attempt())
        await until_step(stream, 1)
        assert (await caller.worker()).state == pb.Worker.BUSY
        await caller.cancel(attempt())
        await caller.cancel(attempt())  # idempotent
        rest = await to_the_end(stream)
        assert kinds(rest)[-1] == "cancelled"
        assert all(event.progress.step < 100 for event in rest)
        assert (await caller.worker()).state == pb.Worker.IDLE
        again = await to_the_end(caller.generate(long, attempt()))
        assert kinds(again) == ["accepted", "progress", "cancelled"]
        assert kinds(await to_the_end(caller.generate(short(), attempt(2))))[-1] == "finished"


async def test_a_newer_owner_takes_the_running_attempt_over(kind: WorkerKind, tmp_path: Path, long: Parameters) -> None:
    async with kind.ready(tmp_path) as (_, caller):
        old = caller.generate(long, attempt(epoch=1))
        await until_step(old, 1)
        new = caller.generate(long, attempt(epoch=2))
        await anext(new)
        ended = await error_of(old)
        assert isinstance(ended, Aborted)
        assert ended.reason is Reason.STALE_OWNER
        assert ended.metadata == {"number": "1", "owner_epoch": "2"}
        for refused in (caller.cancel(attempt(epoch=1)), caller.release(attempt(epoch=1))):
            with pytest.raises(Aborted, match="attempt 1, owner epoch 2"):
                await refused
        assert isinstance(await error_of(caller.generate(long, attempt(epoch=1))), Aborted)
        events = await to_the_end(new)
        assert kinds(events)[-1] == "finished"
        assert [event.progress.step for event in events if event.progress.HasField("step")][-1] == 100


async def test_a_higher_number_stops_the_older_attempt_and_gets_its_own_video(
    kind: WorkerKind, tmp_path: Path, long: Parameters, short: Make
) -> None:
    async with kind.ready(tmp_path) as (service, caller):
        old = caller.generate(long, attempt(number=1))
        await until_step(old, 1)
        events = await to_the_end(caller.generate(short(), attempt(number=2)))
        assert isinstance(await error_of(old), Aborted)
        assert kinds(events)[-1] == "finished"
        held = (await caller.worker()).attempts
        assert [item.attempt for item in held] == [attempt(number=2)]
        await until(service, lambda: len(folders(tmp_path)) == 1)  # the older one's is gone


async def test_another_generation_is_refused_while_one_runs(kind: WorkerKind, tmp_path: Path, long: Parameters) -> None:
    async with kind.ready(tmp_path) as (_, caller):
        stream = caller.generate(long, attempt(1))
        await until_step(stream, 1)
        busy = await error_of(caller.generate(long, attempt(2)))
        assert isinstance(busy, Unavailable)
        assert busy.reason is Reason.WORKER_BUSY


async def test_a_draining_worker_takes_nothing_new_and_finishes_what_runs(
    kind: WorkerKind, tmp_path: Path, short: Make
) -> None:
    chosen = short(num_inference_steps=50)
    async with kind.ready(tmp_path) as (service, caller):
        stream = caller.generate(chosen, attempt(1))
        await until_step(stream, 1)
        assert (await caller.drain()).state == pb.Worker.DRAINING
        assert not service.worker.ready
        refused = await error_of(caller.generate(chosen, attempt(2)))
        assert isinstance(refused, Unavailable)
        assert refused.reason is Reason.WORKER_DRAINING
        assert kinds(await to_the_end(caller.generate(chosen, attempt(1, epoch=2))))[-1] == "finished"


async def test_a_released_outcome_is_forgotten_with_its_file(kind: WorkerKind, tmp_path: Path, short: Make) -> None:
    chosen = short()
    async with kind.ready(tmp_path) as (_, caller):
        await to_the_end(caller.generate(chosen, attempt()))
        held = (await caller.worker()).attempts
        assert [(item.attempt, item.running) for item in held] == [(attempt(), False)]
        assert len(folders(tmp_path)) == 1
        await caller.release(attempt())
        await caller.release(attempt())  # idempotent
        assert list((await caller.worker()).attempts) == []
        assert folders(tmp_path) == []
        again = await error_of(caller.generate(chosen, attempt()))
        assert isinstance(again, FailedPrecondition)
        with pytest.raises(NotFound):
            await caller.cancel(attempt())


async def test_an_outcome_that_nobody_comes_back_for_expires(kind: WorkerKind, tmp_path: Path, short: Make) -> None:
    async with kind.ready(tmp_path, orphan_grace=0.5) as (service, caller):
        await to_the_end(caller.generate(short(), attempt()))
        await until(service, lambda: not service.worker.held and not folders(tmp_path))


async def test_an_error_of_the_engine_is_the_attempts_last_event(kind: WorkerKind, tmp_path: Path, short: Make) -> None:
    async with kind.ready(tmp_path) as (_, caller):
        events = await to_the_end(caller.generate(short(prompt="x " * 600), attempt()))
        told = [kind for kind in kinds(events) if kind != "progress"]  # which may come too late
        assert told == ["accepted", "failed"]
        error = from_status(events[-1].failed.error)
        assert isinstance(error, InvalidRequest)
        assert error.violations[0].field == "parameters.prompt"
        assert (await caller.worker()).state == pb.Worker.IDLE


BAD_STARTS: list[tuple[pb.Attempt, dict[str, Any], str]] = [
    (pb.Attempt(generation="generations/7", number=1, owner_epoch=1), {}, "attempt.generation"),
    (attempt(number=0), {}, "attempt.number"),
    (attempt(epoch=0), {}, "attempt.owner_epoch"),
    (attempt(), {"model_version": "latest"}, "start.model_version"),
    (attempt(), {"video_offset": -1}, "start.video_offset"),
    (attempt(), {"parameters": generation_pb2.Parameters(prompt="a cat")}, "start.parameters"),
]


async def test_a_bad_start_names_its_field(kind: WorkerKind, tmp_path: Path, short: Make) -> None:
    async with kind.ready(tmp_path) as (_, caller):
        for which, start, field in BAD_STARTS:
            error = await error_of(caller.generate(short(), which, **start))
            assert isinstance(error, InvalidRequest)
            assert error.violations[0].field == field
        error = await error_of(caller.generate(replace(short(), width=65), attempt()))
        assert isinstance(error, InvalidRequest)
        assert error.violations[0].field == "parameters.width"
        chunk = pb.GenerateRequest(input_chunk=pb.GenerateRequest.InputChunk(media="media/x"))
        assert isinstance(await error_of(caller.send(chunk)), InvalidRequest)
        assert isinstance(await error_of(caller.send()), InvalidRequest)


async def test_another_version_is_refused(kind: WorkerKind, tmp_path: Path, short: Make) -> None:
    version = await kind.version("t2v-a14b")
    async with kind.ready(tmp_path) as (_, caller):
        other = version[:-1] + ("0" if version[-1] != "0" else "1")
        error = await error_of(caller.generate(short(), attempt(), model_version=other))
        assert isinstance(error, FailedPrecondition)
        assert error.reason is Reason.WRONG_VERSION
        assert version in error.message


async def test_chunks_are_at_most_a_mebibyte_and_checked(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "v.mp4").write_bytes(content)
    events = [
        event
        async for event in _video(Finished(tmp_path / "v.mp4", len(content), "", 0.0, Recipe("v", "m", {}, {})), 5)
    ]
    assert [len(event.video_chunk.data) for event in events] == [1 << 20, 1 << 20, len(content) - 5 - (2 << 20)]
    assert [event.video_chunk.offset for event in events] == [5, 5 + (1 << 20), 5 + (2 << 20)]
    assert video_of(events) == content[5:]
    assert all(event.video_chunk.crc32 == zlib.crc32(event.video_chunk.data) for event in events)


def folders(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "scratch" / "one").iterdir() if path.is_dir()]
