"""Which checkpoint an attempt is sent, and what becomes of those that are of no use."""

from __future__ import annotations

import asyncio
import hashlib
import os
import zlib
from pathlib import Path

from wan22.errors import DataLoss, FailedPrecondition, Reason, Unavailable, Wan22Error
from wan22.status import to_status
from wan22.v1 import inference_pb2 as pb
from wan22.v1.generation_pb2 import AttemptStart, Generation
from wan22.v1.inference_pb2 import GenerateEvent

from .scripted_worker import T2V, Script, ScriptedWorkerServicer, Start, accepted, gateway_with

Events = list[GenerateEvent | Wan22Error]
KILLED = Unavailable("the process is killed")


def checkpoint(step: int, data: bytes = b"latents", numerics: str = "n1", *, damaged: bool = False) -> Events:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    made = pb.Checkpoint(step=step, size_bytes=len(data), digest=digest, numerics_digest=numerics)
    chunk = pb.CheckpointChunk(step=step, data=data, crc32=zlib.crc32(data) ^ damaged)
    return [GenerateEvent(checkpoint=made), GenerateEvent(checkpoint_chunk=chunk)]


def killed_after(*steps: int) -> Script:
    """The process dies some steps on."""
    return lambda start: [accepted(start), *(event for step in steps for event in checkpoint(step)), KILLED]


def restarted(start: Start) -> Events:
    """Another process answers the gateway's next call."""
    return [accepted(start, incarnation="i2")]


def stored(folder: Path) -> list[str]:
    walk = os.walk(folder / "videos" / "checkpoints")  # which does not mind a folder that goes meanwhile
    return sorted(Path(name).stem for _, _, names in walk for name in names if name.endswith(".safetensors"))


async def outcome(
    folder: Path, worker: ScriptedWorkerServicer, resume_wait: float = 0.0
) -> tuple[Generation, list[AttemptStart]]:
    """One generation through the worker: its end, and how its attempts began. No checkpoint is left of it."""
    async with asyncio.timeout(60), gateway_with(folder, worker, resume_wait_seconds=resume_wait) as client:
        made = await client.create(variant=T2V, prompt="a red circle")
        done = await client.wait(made.name)
        starts = [event.attempt_start async for event in client.watch(made.name) if event.HasField("attempt_start")]
        while stored(folder):  # noqa: ASYNC110  # the files go a moment after the final state
            await asyncio.sleep(0.05)
    return done, starts


def resumed(worker: ScriptedWorkerServicer) -> list[int]:
    """The step that each Generate call was to go on from; 0 for none."""
    return [start.resume.step for start in worker.starts]


async def test_a_lost_attempt_goes_on_from_the_newest_checkpoint(tmp_path: Path) -> None:
    worker = ScriptedWorkerServicer(killed_after(1, 2, 3), restarted)
    done, starts = await outcome(tmp_path, worker)
    assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 2)
    assert resumed(worker) == [0, 0, 3]
    assert [start.checkpoint_step for start in worker.starts] == [0, 3, 3]  # what it has is not sent again
    assert worker.checkpoint == b"latents"
    assert [(start.resumed_step, start.restart_reason) for start in starts] == [(0, ""), (3, "")]
    assert (done.resumed_step, done.restart_reason) == (3, "")


async def test_one_that_was_damaged_on_its_way_is_not_kept(tmp_path: Path) -> None:
    def script(start: Start) -> Events:
        return [accepted(start), *checkpoint(1), *checkpoint(2, damaged=True), KILLED]

    worker = ScriptedWorkerServicer(script, restarted)
    done, starts = await outcome(tmp_path, worker)
    assert done.state == Generation.SUCCEEDED
    assert [start.resumed_step for start in starts] == [0, 1]


async def test_one_that_is_gone_gives_way_to_the_one_before(tmp_path: Path) -> None:
    def remove(start: Start) -> Events:
        (newest,) = (tmp_path / "videos" / "checkpoints").rglob("1-1-2.safetensors")
        newest.unlink()
        return restarted(start)

    done, starts = await outcome(tmp_path, ScriptedWorkerServicer(killed_after(1, 2), remove))
    assert done.state == Generation.SUCCEEDED
    assert [start.resumed_step for start in starts] == [0, 1]


async def test_one_that_the_worker_finds_damaged_gives_way_to_the_one_before_and_then_to_none(tmp_path: Path) -> None:
    damaged = DataLoss("The checkpoint is damaged.", reason=Reason.DAMAGED_CHECKPOINT)
    worker = ScriptedWorkerServicer(killed_after(1, 2), restarted, lambda _: [damaged], lambda _: [damaged])
    done, starts = await outcome(tmp_path, worker)
    assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 2)  # a refusal is no attempt
    assert resumed(worker) == [0, 0, 2, 1, 0]
    assert (starts[1].resumed_step, starts[1].restart_reason) == (0, "The checkpoint is damaged")


async def test_one_that_fails_in_the_engine_costs_an_attempt_and_not_the_generation(tmp_path: Path) -> None:
    error = DataLoss("The checkpoint is not of this solver.", reason=Reason.DAMAGED_CHECKPOINT)

    def fails(start: Start) -> Events:
        return [accepted(start), GenerateEvent(failed=GenerateEvent.Failed(error=to_status(error)))]

    worker = ScriptedWorkerServicer(killed_after(1, 2), restarted, fails)
    done, starts = await outcome(tmp_path, worker)
    assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 3)
    assert resumed(worker) == [0, 0, 2, 0]
    assert starts[2].restart_reason == "The checkpoint is not of this solver"


async def test_a_worker_of_other_numerics_starts_anew_after_the_wait(tmp_path: Path) -> None:
    worker = ScriptedWorkerServicer(killed_after(1, 2), restarted, lambda _: become(worker, "n2"))
    done, starts = await outcome(tmp_path, worker)
    assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 2)
    assert resumed(worker) == [0, 0, 2, 0]
    assert starts[1].restart_reason == "the checkpoint of step 2 was made by other numerics"
    assert (done.resumed_step, done.restart_reason) == (0, starts[1].restart_reason)


async def test_a_refusal_by_a_worker_of_other_numerics_costs_no_checkpoint(tmp_path: Path) -> None:
    worker = ScriptedWorkerServicer(
        killed_after(1, 2),
        restarted,
        lambda _: become(worker, "n2"),
        lambda _: become(worker, "n1"),
    )
    done, starts = await outcome(tmp_path, worker)
    assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 2)
    assert resumed(worker) == [0, 0, 2, 0, 2]
    assert (starts[1].resumed_step, starts[1].restart_reason) == (2, "")


async def test_a_worker_whose_numerics_have_changed_unnoticed_costs_no_checkpoint(tmp_path: Path) -> None:
    other = FailedPrecondition("made by other numerics", reason=Reason.OTHER_NUMERICS)
    worker = ScriptedWorkerServicer(killed_after(1, 2), restarted, lambda _: [other])
    done, starts = await outcome(tmp_path, worker)
    assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 2)
    assert resumed(worker) == [0, 0, 2, 2]
    assert starts[1].resumed_step == 2


def become(worker: ScriptedWorkerServicer, numerics: str) -> Events:
    """The worker is busy, and of other numerics when it is asked again."""
    worker.numerics = numerics
    return [Unavailable("busy", reason=Reason.WORKER_BUSY)]
