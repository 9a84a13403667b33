"""The operator with nodes that run its pods: generations are made, workers come, leave, fail and are replaced."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from datetime import datetime
from pathlib import Path

import pytest

from wan22.client import Client
from wan22.errors import Wan22Error
from wan22.v1.generation_pb2 import Generation
from wan22_operator.builders.pod import version_of
from wan22_testing.process_kubelet.images import Image
from wan22_testing.process_kubelet.kubelet import ProcessKubelet
from wan22_testing.process_kubelet.node import NodeSpec
from wan22_testing.service_process import ServiceProcess
from wan22_testing.tiny_models import shared_folder

from .operated import SIMULATED, T2V, Operated, condition_of, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAMESPACE = "operator-nodes"
NODES = [NodeSpec("one", gpus=2), NodeSpec("two", gpus=2)]
SETTINGS = {"resolve_seconds": 1, "gpu_budget": 3}
IMAGES = {
    "wan22/worker": Image((*SIMULATED, "--load-seconds", "0.5", "--time-scale", "0.01")),
    "wan22/slow": Image((*SIMULATED, "--load-seconds", "0.5", "--time-scale", "1")),
    "wan22/starved": Image((*SIMULATED, "--time-scale", "600", "--gpu-utilization", "0.08")),
    "wan22/slower": Image((*SIMULATED, "--load-seconds", "0.5", "--time-scale", "6")),
    "wan22/crash": Image(("python", "-c", "raise SystemExit(3)", "--")),
}


@pytest.fixture(scope="module")
def cluster(operated: Operated, operator: ServiceProcess) -> Operated:
    """With its operator at work."""
    return operated


def another_version(folder: Path) -> Path:
    """The same model with a file that differs."""
    copied = shutil.copytree(shared_folder(T2V), folder / "model")
    index = copied / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_diffusers_version": "0.0.0"}))
    return copied


async def test_from_zero_to_a_video_and_back_to_zero(cluster: Operated, client: Client) -> None:
    cluster.apply("zero", scaling={"maxReplicas": 2, "idleHoldSeconds": 3})
    await until(lambda: cluster.status("zero"), lambda found: condition_of(found, "Declared")[0] == "True")
    queued = await cluster.create(client, "zero")
    async with asyncio.timeout(60):
        done = await client.wait(queued.name)
    assert done.state == Generation.SUCCEEDED
    status = await until(lambda: cluster.status("zero"), lambda found: found.get("loads"))
    assert status["loads"][0]["seconds"] < 30
    await until(lambda: cluster.pods("zero"), lambda found: not found)
    assert cluster.status("zero")["desiredReplicas"] == 0
    await cluster.remove("zero")


@pytest.mark.long
async def test_at_rest_nothing_is_written_and_a_killed_operator_goes_on_without_touching_a_worker(
    cluster: Operated, operator: ServiceProcess
) -> None:
    cluster.apply("rest", scaling={"minReplicas": 2, "maxReplicas": 2})
    await until(lambda: cluster.states("rest"), lambda found: list(found.values()) == ["Idle", "Idle"])
    await until(lambda: cluster.status("rest"), lambda found: found["readyReplicas"] == 2)
    await asyncio.sleep(3)  # two rounds
    before, pods = cluster.get("rest"), cluster.pods("rest")
    await asyncio.sleep(5)
    assert cluster.get("rest")["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    operator.kill()
    operator.start()
    await operator.until()
    await asyncio.sleep(6)
    assert [pod["metadata"]["uid"] for pod in cluster.pods("rest")] == [pod["metadata"]["uid"] for pod in pods]
    assert cluster.get("rest")["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    await cluster.remove("rest")


async def test_a_rolling_update_ends_what_runs_and_keeps_capacity(cluster: Operated, client: Client) -> None:
    scaling = {"minReplicas": 2, "maxReplicas": 2}
    rolling = {"trigger": "Rolling", "maxUnavailable": 1}
    cluster.apply("roll", scaling=scaling, update=rolling, image="wan22/slow:1")
    await until(lambda: cluster.states("roll"), lambda found: list(found.values()) == ["Idle", "Idle"])
    work = [await cluster.create(client, "roll", 10) for _ in range(4)]
    await until(lambda: cluster.states("roll"), lambda found: list(found.values()) == ["Busy", "Busy"])
    cluster.apply("roll", scaling=scaling, update=rolling, image="wan22/worker:2")
    fewest = 2

    def images() -> list[str]:
        nonlocal fewest
        present = [pod for pod in cluster.pods("roll") if "deletionTimestamp" not in pod["metadata"]]
        fewest = min(fewest, len(present))
        return [pod["spec"]["containers"][0]["image"] for pod in present]

    await until(images, lambda found: found == ["wan22/worker:2"] * 2, 90)
    async with asyncio.timeout(60):
        ends = [await client.wait(one.name) for one in work]
    assert [end.state for end in ends] == [Generation.SUCCEEDED] * 4
    assert [end.attempt_count for end in ends] == [1] * 4
    assert fewest == 1
    await cluster.remove("roll")


async def test_a_model_version_rolls_under_load_and_each_generation_keeps_its_own(
    cluster: Operated, client: Client, tmp_path: Path
) -> None:
    rolling = {"trigger": "Rolling", "maxUnavailable": 1}
    cluster.apply("next", scaling={"minReplicas": 2, "maxReplicas": 2}, update=rolling, image="wan22/slow:1")
    before = await until(lambda: cluster.status("next"), lambda found: found.get("readyReplicas") == 2)
    made: list[Generation] = []
    fewest, done = 2, asyncio.Event()

    async def ask() -> None:
        while not done.is_set():
            made.append(await cluster.create(client, "next", 2))
            await asyncio.sleep(0.4)  # so that there is work all the time

    def versions() -> set[str]:
        nonlocal fewest
        status = cluster.status("next")
        fewest = min(fewest, status["readyReplicas"])
        return {status["modelVersion"], status.get("earlierModelVersion", ""), *map(version_of, cluster.pods("next"))}

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ask())
        await until(lambda: len(made), lambda count: count > 3)
        after = await cluster.installation.push(T2V, another_version(tmp_path))
        assert after != before["modelVersion"]
        await until(versions, lambda found: found == {after, ""}, 120)
        await until(lambda: made[-1].model_version, lambda version: version == after)
        done.set()
    async with asyncio.timeout(90):
        ends = [await client.wait(one.name) for one in made]
    assert {end.state for end in ends} == {Generation.SUCCEEDED}
    assert {end.attempt_count for end in ends} == {1}
    assert [end.model_version for end in ends] == [one.model_version for one in made]
    assert {one.model_version for one in made} == {before["modelVersion"], after}
    assert fewest == 1
    await cluster.remove("next")


@pytest.mark.long
async def test_busy_workers_that_wait_for_something_else_than_their_gpu_get_no_help(
    cluster: Operated, client: Client
) -> None:
    cluster.apply("starved", scaling={"maxReplicas": 2}, image="wan22/starved:1")
    await until(lambda: condition_of(cluster.status("starved"), "Declared")[0], lambda found: found == "True")
    running = await cluster.create(client, "starved", 50)
    await until(lambda: cluster.states("starved"), lambda found: list(found.values()) == ["Busy"])
    await until(
        lambda: cluster.status("starved")["workers"][0]["since"],
        lambda since: time.time() - datetime.fromisoformat(since).timestamp() > 65,  # it is judged after a minute
        90.0,
    )
    waiting = [await cluster.create(client, "starved", 50) for _ in range(160)]  # a second of GPU time each
    found = await until(
        lambda: condition_of(cluster.status("starved"), "ScalingActive")[2], lambda text: "of their" in text
    )
    assert found.endswith(
        "the busy ones use less than 20% of their GPUs: they wait for something else, and more GPUs would too."
    )
    assert len(cluster.pods("starved")) == 1
    for one in (*waiting, running):
        await client.cancel(one.name)
    await cluster.remove("starved")


@pytest.mark.long
async def test_an_external_scaler_sets_replicas_and_the_operator_drains_who_leaves(
    cluster: Operated, client: Client
) -> None:
    cluster.apply("outside", scaling={"mode": "External", "maxReplicas": 3}, image="wan22/slow:1")
    scale = ("scale", "wanpool/outside", "--namespace", NAMESPACE)
    cluster.kubectl(*scale, "--replicas=2")
    await until(lambda: cluster.states("outside"), lambda found: list(found.values()) == ["Idle", "Idle"])
    work = [await cluster.create(client, "outside", 10) for _ in range(3)]
    await until(lambda: cluster.states("outside"), lambda found: list(found.values()) == ["Busy", "Busy"])
    cluster.kubectl(*scale, "--replicas=1")
    await until(lambda: cluster.pods("outside"), lambda found: len(found) == 1, 60)
    async with asyncio.timeout(60):
        ends = [await client.wait(one.name) for one in work]
    assert [(end.state, end.attempt_count) for end in ends] == [(Generation.SUCCEEDED, 1)] * 3
    assert cluster.get("outside")["spec"]["replicas"] == 1
    await cluster.remove("outside")


@pytest.mark.long
async def test_a_worker_on_a_lost_node_is_replaced_elsewhere_and_its_name_not_used_again(
    cluster: Operated, client: Client, kubelet: ProcessKubelet
) -> None:
    cluster.apply("lost", scaling={"minReplicas": 1, "maxReplicas": 1})
    status = await until(lambda: cluster.status("lost"), lambda found: found.get("readyReplicas") == 1)
    node = status["workers"][0]["node"]
    kubelet.kill_node(node)
    try:
        ready = await until(
            lambda: cluster.status("lost"), lambda found: found.get("readyReplicas") == 1 and "lost-1" in str(found), 90
        )
        states = {worker["name"]: (worker["state"], worker.get("node")) for worker in ready["workers"]}
        assert states["lost-0"] == ("Lost", node)
        assert states["lost-1"][0] == "Idle"
        assert states["lost-1"][1] != node
    finally:
        kubelet.restore_node(node)
    await until(lambda: cluster.states("lost"), lambda found: list(found) == ["lost-1"], 60)
    await cluster.remove("lost")


@pytest.mark.long
async def test_drift_is_repaired_and_a_deleted_pod_replaced(cluster: Operated) -> None:
    cluster.apply("drift", scaling={"minReplicas": 1, "maxReplicas": 1})
    await until(lambda: cluster.status("drift"), lambda found: found.get("readyReplicas") == 1)
    inside = ("--namespace", NAMESPACE)
    cluster.kubectl("delete", "networkpolicy", "drift-workers", *inside)
    change = '{"spec": {"publishNotReadyAddresses": false}}'
    cluster.kubectl("patch", "service", "drift-workers", *inside, "--type=merge", "--patch", change)
    get = lambda: cluster.kubectl.get("service", "drift-workers", *inside)["spec"]["publishNotReadyAddresses"]  # noqa: E731
    await until(get, bool)
    await until(
        lambda: cluster.kubectl("get", "networkpolicy", *inside, "--output=name"),
        lambda found: "drift-workers" in found,
    )
    cluster.kubectl("delete", "pod", "drift-0", *inside, "--wait=false")
    await until(lambda: cluster.states("drift"), lambda found: found == {"drift-1": "Idle"}, 60)
    await cluster.remove("drift")


async def test_a_deleted_pool_lets_its_workers_end_what_they_do_and_leaves_the_gateway(
    cluster: Operated, client: Client
) -> None:
    """Long requests were cut at termination in knative serving issue 6201, and after 5 s in dynamo issue 13559."""
    cluster.apply("ends", scaling={"minReplicas": 1, "maxReplicas": 1}, image="wan22/slower:1")
    await until(lambda: cluster.status("ends"), lambda found: found.get("readyReplicas") == 1)
    running = await cluster.create(client, "ends")
    await until(lambda: cluster.states("ends"), lambda found: list(found.values()) == ["Busy"])
    waiting = [await cluster.create(client, "ends") for _ in range(3)]
    await cluster.remove("ends")
    async with asyncio.timeout(90):
        done = await client.wait(running.name)
        refused = [await client.wait(one.name) for one in waiting]
    assert done.state == Generation.SUCCEEDED
    assert refused[-1].state == Generation.FAILED
    assert "was deleted while" in refused[-1].error.message
    await until(lambda: cluster.pods("ends"), lambda found: not found)
    kinds = "services,serviceaccounts,networkpolicies"
    children = lambda: cluster.kubectl("get", kinds, "--namespace", NAMESPACE, "--output=name")  # noqa: E731
    await until(children, lambda found: "ends-workers" not in found)
    with pytest.raises(Wan22Error, match="ends"):
        await cluster.create(client, "ends")


@pytest.mark.long
async def test_an_image_that_crashes_is_a_condition_and_no_crowd_of_pods(cluster: Operated) -> None:
    cluster.apply("crash", scaling={"minReplicas": 2, "maxReplicas": 3}, image="wan22/crash:1")
    broken = await until(
        lambda: cluster.status("crash"), lambda found: condition_of(found, "Healthy")[1] == "WorkerBroken"
    )
    assert "CrashLoopBackOff" in condition_of(broken, "Healthy")[2]
    await asyncio.sleep(5)
    assert list(cluster.uids("crash")) == ["crash-0"]
    reason, message = condition_of(cluster.status("crash"), "ScalingActive")[1:]
    assert (reason, message.partition(": ")[0]) == ("Blocked", "crash-0 is broken")
    cluster.apply("crash", scaling={"minReplicas": 2, "maxReplicas": 3}, image="wan22/worker:1")
    await until(lambda: cluster.status("crash"), lambda found: found.get("readyReplicas") == 2, 60)
    await cluster.remove("crash")


@pytest.mark.long
async def test_pools_share_a_gpu_budget_and_take_over_what_another_frees(cluster: Operated) -> None:
    for name in ("first", "second"):
        cluster.apply(name, scaling={"minReplicas": 2, "maxReplicas": 2})

    def ready() -> int:
        return sum(cluster.status(name).get("readyReplicas", 0) for name in ("first", "second"))

    await until(ready, lambda found: found == 3)
    await asyncio.sleep(5)  # some rounds
    assert len(cluster.pods("first")) + len(cluster.pods("second")) == 3
    short, other = sorted(("first", "second"), key=lambda name: len(cluster.pods(name)))
    text = "The GPU budget of 3 leaves it 1 of the 2 workers wanted."
    assert condition_of(cluster.status(short), "ScalingActive") == ("False", "Blocked", text)
    await cluster.remove(other)
    await until(lambda: cluster.status(short), lambda found: found.get("readyReplicas") == 2)
    await cluster.remove(short)
