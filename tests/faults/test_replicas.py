"""Three gateways on one PostgreSQL: whichever is paused or killed, another one goes on, and nothing runs twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from wan22.channels import open_channel
from wan22.client import Client, ParameterOptions
from wan22.errors import FailedPrecondition, NotFound, OutOfRange, Reason
from wan22.status import from_rpc_error
from wan22.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    generation_pb2,
    inference_pb2,
    inference_pb2_grpc,
    pool_pb2,
    pool_pb2_grpc,
)
from wan22.v1.generation_pb2 import Generation
from wan22_testing.installation import SIMULATED_WORKER, Installation
from wan22_testing.postgres import PostgresServer
from wan22_testing.service_process import ServiceProcess
from wan22_testing.tiny_models import shared_folder

from .conftest import LEASE, T2V, WORK

pytestmark = pytest.mark.asyncio(loop_scope="module")
SHORT: ParameterOptions = {"num_inference_steps": 2, "num_frames": 5, "seed": 7}
REPLICAS = 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    postgres: PostgresServer, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Installation]:
    store = postgres.url(postgres.create(migrated))
    folder = tmp_path_factory.mktemp("replicas")
    async with Installation(
        folder, replicas=REPLICAS, store=store, lease_seconds=LEASE, worker_lease_seconds=LEASE
    ) as running:
        await running.push(T2V, shared_folder(T2V))
        await running.serve(T2V, "w1", "w2", checkpoint_seconds=0)
        await running.start_workers("w1", "w2")
        await running.until_known("w1", "w2")
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def installation(shared: Installation) -> Installation:
    """All replicas and workers, whatever an earlier test did to them."""
    processes = [*shared.gateways, *shared.workers.values()]
    for process in processes:
        if not process.running:
            process.start()
    await asyncio.gather(*(process.until() for process in processes))
    await shared.until_known("w1", "w2")
    return shared


async def denoising(client: Client, name: str) -> None:
    async for event in client.watch(name):
        if event.progress.step > 0:
            return


async def attempt_of(client: Client, name: str) -> str:
    """The worker of the first attempt."""
    starts = (event.attempt_start async for event in client.watch(name) if event.HasField("attempt_start"))
    return (await anext(aiter(starts))).worker


async def until_logged(gateways: list[ServiceProcess], text: str) -> ServiceProcess:
    """The replica whose log is the first to have the text."""
    async with asyncio.timeout(60):
        while True:
            for gateway in gateways:
                if text in gateway.log.read_text():
                    return gateway
            await asyncio.sleep(0.1)  # a log has no events to wait for


async def owner_of(installation: Installation, name: str) -> ServiceProcess:
    return await until_logged(installation.gateways, f"Attempt 1 of {name} is workers/")


async def check_it_ran_once(installation: Installation, client: Client, name: str) -> None:
    done = await client.get(name)
    assert (done.state, done.attempt_count) == (Generation.SUCCEEDED, 1)
    events = [event async for event in client.watch(name) if event.sequence]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert len([event for event in events if event.state_change.state == Generation.SUCCEEDED]) == 1
    videos = installation.folder / "videos" / "videos" / name.removeprefix("generations/")
    assert len(list(videos.glob("*.mp4"))) == 1


async def test_a_replica_paused_until_another_has_taken_over_is_refused_and_there_is_one_video(
    installation: Installation,
) -> None:
    async with installation.client() as client:
        name = (await client.create(variant=T2V, prompt="a red circle", **WORK)).name
        await denoising(client, name)
    owner = await owner_of(installation, name)
    others = [gateway for gateway in installation.gateways if gateway is not owner]
    owner.pause()
    await until_logged(others, f"Took over attempt 1 of {name}")
    owner.resume()
    async with Client(others[0].address) as client:
        assert (await client.wait(name)).state == Generation.SUCCEEDED
        await check_it_ran_once(installation, client, name)
    told = owner.log.read_text()
    assert f"The lease of {name} was lost: letting go" in told or f"{name} has a newer owner" in told
    async with Client(owner.address) as client:  # it serves as the others do
        await check_it_ran_once(installation, client, name)


async def test_a_killed_replicas_attempt_goes_on_under_another_one(installation: Installation) -> None:
    async with installation.client() as client:
        name = (await client.create(variant=T2V, prompt="a red circle", **WORK)).name
        await denoising(client, name)
    owner = await owner_of(installation, name)
    others = [gateway for gateway in installation.gateways if gateway is not owner]
    owner.kill()
    async with Client(others[1].address) as client:
        assert (await client.wait(name)).state == Generation.SUCCEEDED
        await check_it_ran_once(installation, client, name)
    await until_logged(others, f"Took over attempt 1 of {name}")


async def test_a_watch_at_one_replica_sees_what_another_one_writes_at_once(installation: Installation) -> None:
    async def watch(replica: int, name: str) -> list[generation_pb2.GenerationEvent]:
        async with installation.client(replica) as client:
            return [event async for event in client.watch(name) if event.sequence]

    async with installation.client() as client:
        name = (await client.create(variant=T2V, prompt="a red circle", **SHORT)).name
        async with asyncio.timeout(60):
            seen = await asyncio.gather(*(watch(replica, name) for replica in range(REPLICAS)))
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][-1].state_change.state == Generation.SUCCEEDED


async def test_a_drain_at_one_replica_is_honoured_by_all(installation: Installation) -> None:
    async with open_channel(installation.gateways[0].address) as channel:
        pools = pool_pb2_grpc.PoolServiceStub(channel)
        drained = await pools.DrainWorker(pool_pb2.DrainWorkerRequest(name="workers/w1"), timeout=10.0)
        assert drained.HasField("drain_expire_time")
    for gateway in installation.gateways:
        async with open_channel(gateway.address) as channel:
            pool = (await pool_pb2_grpc.PoolServiceStub(channel).ListPools(pool_pb2.ListPoolsRequest())).pools[0]
            assert [worker.HasField("drain_expire_time") for worker in pool.workers] == [True, False]
    clients = [installation.client(replica) for replica in range(REPLICAS)]
    made = []
    for client in clients:
        async with client:
            made += [(await client.create(variant=T2V, prompt="a red circle", **SHORT)).name for _ in range(2)]
    async with installation.client(1) as client:
        for name in made:
            assert (await client.wait(name)).state == Generation.SUCCEEDED
            events = [event async for event in client.watch(name)]
            workers = [event.attempt_start.worker for event in events if event.HasField("attempt_start")]
            assert workers == ["workers/w2"]
    async with open_channel(installation.gateways[2].address) as channel:
        pools = pool_pb2_grpc.PoolServiceStub(channel)
        free = await pools.UndrainWorker(pool_pb2.UndrainWorkerRequest(name="workers/w1"), timeout=10.0)
        assert not free.HasField("drain_expire_time")


async def test_a_claimed_worker_is_drained_by_no_replica(installation: Installation) -> None:
    async with installation.client() as client:
        name = (await client.create(variant=T2V, prompt="a red circle", **WORK)).name
        await denoising(client, name)
        worker = await attempt_of(client, name)
        for gateway in installation.gateways:
            async with open_channel(gateway.address) as channel:
                pools = pool_pb2_grpc.PoolServiceStub(channel)
                with pytest.raises(grpc.aio.AioRpcError, match="has an attempt of") as caught:
                    await pools.DrainWorker(pool_pb2.DrainWorkerRequest(name=worker), timeout=10.0)
                assert isinstance(from_rpc_error(caught.value), FailedPrecondition)
        await client.cancel(name)
        assert (await client.wait(name)).state == Generation.CANCELLED


async def running_elsewhere(installation: Installation) -> tuple[str, int]:
    """A generation that runs, and a replica that does not own it."""
    async with installation.client() as client:
        name = (await client.create(variant=T2V, prompt="a red circle", **WORK)).name
        await denoising(client, name)
    owner = installation.gateways.index(await owner_of(installation, name))
    return name, (owner + 1) % REPLICAS


async def test_a_cancel_at_another_replica_than_the_owner_stops_the_worker(installation: Installation) -> None:
    name, other = await running_elsewhere(installation)
    async with installation.client(other) as client:
        assert (await client.cancel(name)).HasField("cancel_requested_time")
        done = await client.wait(name)
    assert (done.state, done.attempt_count) == (Generation.CANCELLED, 1)
    async with installation.client((other + 1) % REPLICAS) as client:
        after = await client.create(variant=T2V, prompt="a red circle", **SHORT)
        assert (await client.wait(after.name)).state == Generation.SUCCEEDED  # the worker is free


async def test_a_deletion_by_force_at_another_replica_than_the_owner_is_whole(installation: Installation) -> None:
    name, other = await running_elsewhere(installation)
    async with installation.client(other) as client:
        with pytest.raises(FailedPrecondition, match="force"):
            await client.delete(name)
        await client.delete(name, force=True)
    for replica in range(REPLICAS):
        async with installation.client(replica) as client:
            with pytest.raises(NotFound):
                await client.get(name)
    videos = installation.folder / "videos" / "videos" / name.removeprefix("generations/")
    assert list(videos.glob("*.mp4")) == []


async def is_there(client: Client, name: str, path: Path) -> bool:
    try:
        await client.download(name, path)
    except NotFound:
        return False
    return True


async def test_a_video_that_is_over_is_gone_at_every_replica(installation: Installation, tmp_path: Path) -> None:
    async with installation.client() as client:
        made = await client.create(variant=T2V, prompt="a red circle", keep_for=2.0, **SHORT)
        done = await client.wait(made.name)
    owner = installation.gateways.index(await owner_of(installation, made.name))
    for replica in ((owner + 1) % REPLICAS, (owner + 2) % REPLICAS, owner):
        async with asyncio.timeout(60), installation.client(replica) as client:
            while await is_there(client, made.name, tmp_path / "video.mp4"):  # noqa: ASYNC110  # its end is a time, not an event
                await asyncio.sleep(0.1)
            with pytest.raises(NotFound) as caught:
                await client.download(made.name, tmp_path / "video.mp4")
            assert caught.value.reason is Reason.VIDEO_EXPIRED
            assert (await client.get(made.name)).state == Generation.SUCCEEDED
    assert done.video.HasField("expire_time")


async def test_a_watch_beyond_the_last_event_is_out_of_range_at_every_replica(installation: Installation) -> None:
    name, other = await running_elsewhere(installation)
    for replica in (other, (other + 1) % REPLICAS, (other + 2) % REPLICAS):
        async with installation.client(replica) as client:
            last = (await client.get(name)).last_sequence
            with pytest.raises(OutOfRange, match=f"{name} has events 1 to") as caught:
                await anext(aiter(client.watch(name, after_sequence=last + 1000)))
            assert int(caught.value.metadata["last_sequence"]) >= last
    async with installation.client(other) as client:
        await client.cancel(name)
        assert (await client.wait(name)).state == Generation.CANCELLED


async def test_quarantine_is_listed_and_released_at_other_replicas_than_the_owner(installation: Installation) -> None:
    pool = "pools/test.poison"
    simulated: dict[str, Any] = {"module": SIMULATED_WORKER, "step_seconds": 0.2}
    await installation.serve(T2V, "p1", "p2", pool=pool, **simulated)
    await installation.start_workers("p1", "p2")
    await installation.until_known("p1", "p2")
    poison: dict[str, Any] = {"variant": T2V, "pool": pool, "prompt": "poison", **WORK}
    async with asyncio.timeout(300), installation.client() as client:
        name = (await client.create(**poison)).name
        worker = ""
        async for event in client.watch(name):
            worker = event.attempt_start.worker.removeprefix("workers/") or worker
            if event.progress.step > 0 and worker:
                installation.workers[worker].kill()
                installation.workers[worker].start()
                worker = ""
        assert (await client.get(name)).state == Generation.FAILED
    owner = installation.gateways.index(await owner_of(installation, name))
    others = [(owner + 1) % REPLICAS, (owner + 2) % REPLICAS]
    for replica in others:
        async with installation.client(replica) as client:
            with pytest.raises(
                FailedPrecondition, match=f"{name}, which differs at most in its seed, is in quarantine"
            ):
                await client.create(**poison)
    async with open_channel(installation.gateways[others[0]].address) as channel:
        listed = await admin_pb2_grpc.AdminServiceStub(channel).ListQuarantined(admin_pb2.ListQuarantinedRequest())
        assert [found.generation for found in listed.quarantined] == [name]
        assert {death.worker for death in listed.quarantined[0].deaths} == {"workers/p1", "workers/p2"}
    async with open_channel(installation.gateways[others[1]].address) as channel:
        request = admin_pb2.ReleaseQuarantinedRequest(name=name)
        released = await admin_pb2_grpc.AdminServiceStub(channel).ReleaseQuarantined(request)
        assert released.HasField("release_time")
    async with installation.client(owner) as client:
        again = await client.create(**poison)
        await client.delete(again.name, force=True)


async def test_a_killed_workers_generation_goes_on_from_its_checkpoint_to_the_same_bytes(
    installation: Installation,
) -> None:
    async with installation.client() as client:
        expected = (await client.wait((await client.create(variant=T2V, prompt="a red circle", **WORK)).name)).video
        name = (await client.create(variant=T2V, prompt="a red circle", **WORK)).name
        checkpoints = installation.folder / "videos" / "checkpoints" / name.removeprefix("generations/")
        worker = ""
        async for event in client.watch(name):
            worker = event.attempt_start.worker or worker
            if event.progress.step > 0 and list(checkpoints.glob("*.safetensors")):
                break
        installation.workers[worker.removeprefix("workers/")].kill()
        done = await client.wait(name)
    assert (done.state, done.attempt_count, done.video.digest) == (Generation.SUCCEEDED, 2, expected.digest)
    assert 0 < done.resumed_step < 100


async def test_what_a_worker_finishes_while_every_replica_is_dead_is_stored_when_one_is_back(
    installation: Installation,
) -> None:
    async with installation.client() as client:
        name = (await client.create(variant=T2V, prompt="a red circle", **WORK)).name
        await denoising(client, name)
        worker = installation.workers[(await attempt_of(client, name)).removeprefix("workers/")]
    for gateway in installation.gateways:
        gateway.kill()
    async with asyncio.timeout(60), open_channel(worker.address) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        while True:
            (held,) = (await stub.GetWorker(inference_pb2.GetWorkerRequest())).attempts
            if not held.running:
                break
            await asyncio.sleep(0.1)  # a worker has no events to wait for
    last = installation.gateways[-1]
    last.start()
    await last.until()
    async with Client(last.address) as client:
        assert (await client.wait(name)).state == Generation.SUCCEEDED
        await check_it_ran_once(installation, client, name)


async def test_workers_are_found_behind_one_headless_name(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n127.0.0.2 workers.test\n127.0.0.3 workers.test\n")
    bound = ["unshare", "--mount", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"]
    probe = await asyncio.create_subprocess_exec(*bound, "true", stderr=asyncio.subprocess.DEVNULL)
    if await probe.wait():
        pytest.skip("a process cannot have an /etc/hosts of its own here: that takes root")
    async with Installation(tmp_path, lease_seconds=LEASE, worker_lease_seconds=LEASE) as own:
        await own.push(T2V, shared_folder(T2V))
        own.gateway.kill()
        own.gateway.start(under=bound)
        await own.gateway.until()
        await own.serve(T2V, "h2", host="127.0.0.2", module=SIMULATED_WORKER)
        await own.serve(T2V, "h3", host="127.0.0.3", module=SIMULATED_WORKER)
        own.workers["h3"].port = own.workers["h2"].port
        await own.declare(T2V, f"workers.test:{own.workers['h2'].port}")
        await own.start_workers("h2", "h3")
        await own.until_known("h2", "h3")
        async with own.client() as client:
            made = [(await client.create(variant=T2V, prompt="a red circle", **SHORT)).name for _ in range(4)]
            assert {(await client.wait(name)).state for name in made} == {Generation.SUCCEEDED}
