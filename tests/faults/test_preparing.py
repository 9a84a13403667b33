"""One generation runs on a worker and the next is prepared there when something happens to the worker."""

from __future__ import annotations

import asyncio

from wan22.channels import open_channel
from wan22.client import Client
from wan22.v1 import pool_pb2, pool_pb2_grpc
from wan22.v1.generation_pb2 import Generation, GenerationEvent
from wan22_testing.installation import Installation

from .conftest import T2V, WORK


async def running_and_prepared(client: Client) -> tuple[str, str]:
    """Two generations, of which the first runs on the only worker and the second is prepared there."""
    first, second = [(await client.create(variant=T2V, prompt="a red circle", **WORK)).name for _ in range(2)]
    async for event in client.watch(second):
        if event.queue.waiting_for == "its turn on workers/w1":
            break
    assert (await client.get(first)).state == Generation.RUNNING
    return first, second


async def history(client: Client, name: str) -> list[GenerationEvent]:
    return [event async for event in client.watch(name) if event.sequence]


def workers_of(events: list[GenerationEvent]) -> list[str]:
    """Where each attempt started."""
    return [event.attempt_start.worker for event in events if event.HasField("attempt_start")]


async def test_after_kill_9_both_end_well_and_no_attempt_of_the_prepared_one_is_counted(
    installation: Installation, client: Client
) -> None:
    await installation.start_workers("w1")
    first, second = await running_and_prepared(client)
    installation.workers["w1"].kill()
    await installation.start_workers("w2")
    lost, other = await client.wait(first), await client.wait(second)
    assert (lost.state, lost.attempt_count) == (Generation.SUCCEEDED, 2)
    assert (other.state, other.attempt_count) == (Generation.SUCCEEDED, 1)
    assert lost.video.digest == other.video.digest
    assert workers_of(await history(client, second)) == ["workers/w2"]


async def test_an_idle_worker_takes_the_prepared_generation_and_the_running_one_goes_on(
    installation: Installation, client: Client
) -> None:
    await installation.start_workers("w1", "w2")
    await installation.until_known("w1", "w2")
    async with open_channel(installation.gateway.address) as channel:
        stub = pool_pb2_grpc.PoolServiceStub(channel)
        await stub.DrainWorker(pool_pb2.DrainWorkerRequest(name="workers/w2"), timeout=10.0)
        first, second = await running_and_prepared(client)
        await stub.UndrainWorker(pool_pb2.UndrainWorkerRequest(name="workers/w2"), timeout=10.0)
    done = [await client.wait(name) for name in (first, second)]
    assert [(d.state, d.attempt_count) for d in done] == [(Generation.SUCCEEDED, 1)] * 2
    events = await history(client, second)
    assert workers_of(events) == ["workers/w2"]
    assert not any(event.HasField("attempt_end") for event in events)
    assert workers_of(await history(client, first)) == ["workers/w1"]
    assert "is withdrawn before it started" in installation.workers["w1"].log.read_text()


async def test_a_worker_that_is_told_to_stop_gives_the_prepared_generation_back(
    installation: Installation, client: Client
) -> None:
    await installation.start_workers("w1")
    first, second = await running_and_prepared(client)
    stopped = asyncio.create_task(asyncio.to_thread(installation.workers["w1"].stop, 60.0))
    async for event in client.watch(second):
        if event.queue.waiting_for and "workers/w1" not in event.queue.waiting_for:
            break
    assert (await client.wait(first)).attempt_count == 1
    assert await stopped == 0
    await installation.start_workers("w2")
    done = await client.wait(second)
    assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 1)


async def test_a_prepared_generation_is_cancelled_and_goes_on_after_a_restart_of_the_gateway(
    installation: Installation, client: Client
) -> None:
    await installation.start_workers("w1")
    first, second = await running_and_prepared(client)
    third = (await client.create(variant=T2V, prompt="a red circle", **WORK)).name
    await client.cancel(second)
    assert (await client.wait(second)).state == Generation.CANCELLED
    async for event in client.watch(third):
        if event.queue.waiting_for == "its turn on workers/w1":
            break
    installation.gateway.kill()
    installation.gateway.start()
    await installation.gateway.until()
    done = [await client.wait(name) for name in (first, third)]
    assert [(d.state, d.attempt_count) for d in done] == [(Generation.SUCCEEDED, 1)] * 2
