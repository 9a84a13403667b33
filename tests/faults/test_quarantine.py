"""A generation that kills worker processes is put away, with the evidence, until an administrator releases it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from wan22.client import ParameterOptions
from wan22.errors import FailedPrecondition, Reason
from wan22.status import from_status
from wan22.v1.generation_pb2 import Generation
from wan22_testing.installation import Installation
from wan22_testing.tiny_models import shared_folder
from wan22_testing.wan22_command import Wan22Command

T2V = "t2v-a14b-tiny"
PROMPT = "poison"
WORK: ParameterOptions = {"num_inference_steps": 100, "num_frames": 33}


async def test_three_killed_workers_quarantine_a_generation_and_its_release_lets_it_run(tmp_path: Path) -> None:
    # a lease longer than any start: on one that lapses, the next attempt begins before this death is known
    patient = Installation(tmp_path, worker_lease_seconds=120)
    async with patient as installation, installation.client() as client:
        await installation.push(T2V, shared_folder(T2V))
        await installation.serve(T2V, "w1", "w2")
        await installation.start_workers("w1", "w2")
        made = await client.create(variant=T2V, prompt=PROMPT, **WORK)
        killed = []
        worker = ""
        async for event in client.watch(made.name):
            if event.HasField("attempt_start"):
                worker = event.attempt_start.worker.removeprefix("workers/")
            elif event.progress.step > 0 and worker:
                installation.workers[worker].kill()
                await asyncio.to_thread(installation.workers[worker].start)
                killed.append(f"workers/{worker}")
                worker = ""
        failed = await client.get(made.name)
        error = from_status(failed.error)
        assert (failed.state, error.reason) == (Generation.FAILED, Reason.QUARANTINED)
        assert (len(killed), set(killed)) == (3, {"workers/w1", "workers/w2"})
        assert error.metadata["workers"] == ", ".join(killed)
        admin = Wan22Command(tmp_path, WAN22_ENDPOINT=installation.gateway.address)
        found = (await admin("admin", "quarantine", "list", "--json")).json()
        assert found["generation"] == made.name
        assert [death["worker"] for death in found["deaths"]] == killed
        assert all(death["progress"]["step"] > 0 for death in found["deaths"])
        with pytest.raises(FailedPrecondition, match=made.name):
            await client.create(variant=T2V, prompt=PROMPT, **WORK)
        released = await admin("admin", "quarantine", "release", made.name)
        assert released.out == f"Released {made.name}.\n"
        again = await client.create(variant=T2V, prompt=PROMPT, **WORK)
        assert (await client.wait(again.name)).state == Generation.SUCCEEDED
