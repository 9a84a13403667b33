from __future__ import annotations

import asyncio
import hashlib
import io
from pathlib import Path

import pytest
from PIL import Image

from wan22.errors import FailedPrecondition, NotFound, Reason, Unavailable, Wan22Error
from wan22.v1 import generation_pb2, inference_pb2
from wan22.v1.generation_pb2 import Generation, Progress
from wan22.v1.inference_pb2 import GenerateEvent

from .scripted_worker import (
    DIGEST,
    T2V,
    VIDEO,
    Script,
    ScriptedWorkerServicer,
    Start,
    accepted,
    chunk,
    finished,
    gateway_with,
    whole,
)


async def outcome(
    folder: Path, *scripts: Script
) -> tuple[Generation, list[generation_pb2.GenerationEvent], ScriptedWorkerServicer]:
    """One generation through a worker that follows the scripts."""
    worker = ScriptedWorkerServicer(*scripts)
    async with asyncio.timeout(60), gateway_with(folder, worker) as client:
        made = await client.create(variant=T2V, prompt="a red circle")
        done = await client.wait(made.name)
        events = [event async for event in client.watch(made.name) if event.sequence]
        await worker.release.wait()  # a moment after the final state
        if done.state == Generation.SUCCEEDED:
            path = await client.download(made.name, folder / "out.mp4")
            assert hashlib.sha256(path.read_bytes()).hexdigest() == DIGEST.removeprefix("sha256:")
    return done, events, worker


async def test_a_worker_in_order_makes_one_attempt_that_is_released(tmp_path: Path) -> None:
    done, _, worker = await outcome(tmp_path)
    assert (done.state, done.attempt_count, done.video.size_bytes) == (Generation.SUCCEEDED, 1, len(VIDEO))
    assert [(a.generation, a.number, a.owner_epoch) for a in worker.released] == [(done.name, 1, 1)]
    assert list((tmp_path / "gateway" / "spool").iterdir()) == []


async def test_steps_are_told_once_a_second_at_most_and_stages_always(tmp_path: Path) -> None:
    def script(start: Start) -> list[GenerateEvent | Wan22Error]:
        denoising = [Progress(stage=Progress.DENOISING, step=step, num_steps=300) for step in range(301)]
        told = [Progress(stage=Progress.ENCODING_TEXT), *denoising, Progress(stage=Progress.DECODING)]
        return [accepted(start), *(GenerateEvent(progress=each) for each in told), *whole(start)[1:]]

    _, events, _ = await outcome(tmp_path, script)
    told = [event for event in events if event.HasField("progress")]
    stages = list(dict.fromkeys(event.progress.stage for event in told))
    assert stages == [Progress.ENCODING_TEXT, Progress.DENOISING, Progress.DECODING, Progress.STORING]
    denoising = [event for event in told if event.progress.stage == Progress.DENOISING]
    steps = [event.progress.step for event in denoising]
    assert (steps[0], steps[-1]) == (0, 300)  # the first and the last are the stage's own
    took = (denoising[-1].event_time.ToMicroseconds() - denoising[0].event_time.ToMicroseconds()) / 1_000_000
    assert 1 <= len(steps[1:-1]) <= took + 2


async def test_a_failure_of_the_engine_is_final_and_says_why(tmp_path: Path) -> None:
    def script(start: Start) -> list[GenerateEvent | Wan22Error]:
        failed = GenerateEvent.Failed()
        failed.error.code, failed.error.message = 13, "The latents are not finite after step 2."
        return [accepted(start), GenerateEvent(failed=failed)]

    done, events, worker = await outcome(tmp_path, script)
    assert (done.state, done.error.code, done.error.message) == (
        Generation.FAILED,
        13,
        "The latents are not finite after step 2.",
    )
    assert events[-1].state_change.error == done.error
    assert len(worker.released) == 1


async def test_a_damaged_chunk_is_fetched_again_from_where_it_stopped(tmp_path: Path) -> None:
    done, _, worker = await outcome(tmp_path, lambda start: [accepted(start), chunk(0), chunk(1 << 20, damaged=True)])
    assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 1)
    assert [start.video_offset for start in worker.starts] == [0, 1 << 20]


async def test_a_video_of_another_digest_is_fetched_again_as_a_whole(tmp_path: Path) -> None:
    def script(start: Start) -> list[GenerateEvent | Wan22Error]:
        return [accepted(start), chunk(0), chunk(1 << 20), finished("sha256:" + "0" * 64)]

    done, _, worker = await outcome(tmp_path, script)
    assert (done.state, done.video.digest) == (Generation.SUCCEEDED, DIGEST)
    assert [start.video_offset for start in worker.starts] == [0, 0]


async def test_a_cut_stream_is_reattached_under_the_same_attempt(tmp_path: Path) -> None:
    done, _, worker = await outcome(tmp_path, lambda start: [accepted(start), Unavailable("cut")])
    assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 1)
    assert [(s.attempt.number, s.attempt.owner_epoch) for s in worker.starts] == [(1, 1), (1, 1)]


async def test_a_refusal_by_a_busy_worker_is_no_attempt(tmp_path: Path) -> None:
    done, events, worker = await outcome(tmp_path, lambda _: [Unavailable("busy", reason=Reason.WORKER_BUSY)])
    assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 1)
    assert [(s.attempt.number, s.attempt.owner_epoch) for s in worker.starts] == [(1, 1), (1, 2)]
    assert sum(event.HasField("attempt_start") for event in events) == 1


async def test_other_parameters_than_ours_are_no_attempt(tmp_path: Path) -> None:
    done, _, worker = await outcome(tmp_path, lambda start: [accepted(start, parameters_digest="sha256:other")])
    assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 1)
    assert len(worker.cancelled) == 1


async def test_another_process_than_was_claimed_loses_nothing_that_had_not_started(tmp_path: Path) -> None:
    def script(start: Start) -> list[GenerateEvent | Wan22Error]:
        return [accepted(start, incarnation="i2"), *whole(start)[1:]]

    done, events, worker = await outcome(tmp_path, script)
    assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 1)
    assert len(worker.starts) == 1
    assert not any(event.HasField("attempt_end") for event in events)


async def test_another_process_than_was_started_is_another_attempt(tmp_path: Path) -> None:
    def script(start: Start) -> list[GenerateEvent | Wan22Error]:
        return [accepted(start), Unavailable("the process is killed")]

    def again(start: Start) -> list[GenerateEvent | Wan22Error]:
        return [accepted(start, incarnation="i2")]

    done, events, worker = await outcome(tmp_path, script, again)
    assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 2)
    assert [event.attempt_end.attempt for event in events if event.HasField("attempt_end")] == [1]
    assert len(worker.cancelled) == 1


async def test_a_process_that_is_still_loading_tells_by_its_refusal_that_the_one_before_died(tmp_path: Path) -> None:
    def killed(start: Start) -> list[GenerateEvent | Wan22Error]:
        return [accepted(start), Unavailable("the process is killed")]

    def loading(_: Start) -> list[GenerateEvent | Wan22Error]:
        worker.incarnation = "i2"
        return [Unavailable("it is loading", reason=Reason.WORKER_LOADING)]

    def again(start: Start) -> list[GenerateEvent | Wan22Error]:
        return [accepted(start, incarnation="i2"), *whole(start)[1:]]

    worker = ScriptedWorkerServicer(killed, loading, again)
    async with asyncio.timeout(60), gateway_with(tmp_path, worker) as client:
        made = await client.create(variant=T2V, prompt="a red circle")
        done = await client.wait(made.name)
        events = [event async for event in client.watch(made.name) if event.sequence]
    assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 2)
    ends = [event.attempt_end.reason for event in events if event.HasField("attempt_end")]
    assert ends == ["workers/w1 ended and was started again"]


async def test_a_number_that_the_worker_has_forgotten_is_not_used_again(tmp_path: Path) -> None:
    released = FailedPrecondition("attempt 1 was released", reason=Reason.ATTEMPT_RELEASED)
    done, _, worker = await outcome(tmp_path, lambda _: [released])
    assert done.state == Generation.SUCCEEDED
    assert [start.attempt.number for start in worker.starts] == [1, 2]


async def test_an_attempt_that_the_store_gave_up_is_stopped_and_freed_on_the_worker(tmp_path: Path) -> None:
    worker = ScriptedWorkerServicer()
    stale = inference_pb2.Attempt(
        generation="generations/" + "0" * 8 + "-0000-0000-0000-" + "0" * 12, number=1, owner_epoch=4
    )
    worker.held = [inference_pb2.HeldAttempt(attempt=stale, running=True)]
    async with asyncio.timeout(60), gateway_with(tmp_path, worker) as client:
        while worker.held:  # noqa: ASYNC110  # it is the gateway's own round that frees it
            await asyncio.sleep(0.05)
        assert worker.cancelled == worker.released == [stale]
        with pytest.raises(NotFound):
            await client.get(stale.generation)


async def test_an_image_that_is_gone_fails_the_generation_and_names_it(tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.new("RGB", (64, 64)).save(png, "PNG")
    worker = ScriptedWorkerServicer()
    async with asyncio.timeout(60), gateway_with(tmp_path, worker, "i2v-a14b-tiny") as client:
        media = await client.upload_media(png.getvalue())
        (stored,) = (tmp_path / "videos" / "media" / "default").iterdir()
        stored.unlink()
        made = await client.create(variant="i2v-a14b-tiny", prompt="a red circle", image=media.name)
        done = await client.wait(made.name)
    assert (done.state, done.attempt_count) == (Generation.FAILED, 0)
    assert done.error.message.startswith(f"The stored object media/default/{stored.name} is gone")
