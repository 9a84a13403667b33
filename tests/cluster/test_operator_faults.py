"""The operator on a real API server with RBAC on, while it, its API server, its gateway and its nodes fail."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from wan22.client import Client
from wan22.v1.generation_pb2 import Generation
from wan22_testing.cluster.control_plane import ControlPlane
from wan22_testing.process_kubelet.images import Image
from wan22_testing.process_kubelet.kubelet import ProcessKubelet
from wan22_testing.process_kubelet.node import NodeSpec
from wan22_testing.service_process import ServiceProcess

from .operated import LEASE, SIMULATED, Operated, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAMESPACE = "operator-faults"
NODES = [NodeSpec(name, gpus=2) for name in ("faults-one", "faults-two")]
SETTINGS: dict[str, object] = {}
IMAGES = {
    "wan22/worker": Image((*SIMULATED, "--time-scale", "0.01")),
    "wan22/slow": Image((*SIMULATED, "--time-scale", "1")),
}
FEW_KILLS, MANY_KILLS = 3, 50
SHORT_OUTAGE, LONG_OUTAGE = 8.0, 300.0
"""Seconds; the figures are stale after 6."""


async def test_a_pool_lives_by_the_charts_rights_alone_and_comes_to_zero_without_any_reading_of_a_gpu(
    operated: Operated, operator: ServiceProcess, client: Client
) -> None:
    operated.apply("life", scaling={"maxReplicas": 2, "idleHoldSeconds": 1})
    await until(lambda: operated.condition("life", "Ready"), lambda found: found == "Idle")
    asked = await operated.create(client, "life")
    assert (await client.wait(asked.name)).state == Generation.SUCCEEDED
    await until(lambda: operated.uids("life"), lambda found: not found)

    operated.apply("life", scaling={"minReplicas": 1, "maxReplicas": 2})
    first = await operated.until_ready("life", 1)
    operated.apply("life", scaling={"minReplicas": 2, "maxReplicas": 2}, paused=True)
    await until(lambda: operated.get("life"), lambda pool: pool["status"]["observedGeneration"] == 3)
    assert operated.uids("life") == first
    operated.apply("life", scaling={"minReplicas": 2, "maxReplicas": 2})
    both = await operated.until_ready("life", 2)
    assert first.items() < both.items()
    await operated.remove("life")
    assert "forbidden" not in operator.log.read_text().lower()


async def test_what_another_field_manager_takes_is_taken_back_and_what_it_adds_stays(
    operated: Operated, operator: ServiceProcess
) -> None:
    operated.apply("shared", scaling={"minReplicas": 1, "maxReplicas": 1})
    pods = await operated.until_ready("shared", 1)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "shared-workers", "namespace": NAMESPACE, "annotations": {"mesh.example/inject": "yes"}},
        "spec": {"publishNotReadyAddresses": False},
    }
    operated.kubectl.apply(service, "--field-manager=mesh", "--force-conflicts")
    found = await until(
        lambda: operated.kubectl.get("service", "shared-workers", *operated.inside),
        lambda found: bool(found["spec"]["publishNotReadyAddresses"]),
        10.0,  # some rounds
    )
    assert found["metadata"]["annotations"]["mesh.example/inject"] == "yes"
    lie = json.dumps({"status": {"workers": [], "desiredReplicas": 7, "nextOrdinal": 0}})
    operated.kubectl(
        "patch", "wanpool", "shared", *operated.inside, "--subresource=status", "--type=merge", "--patch", lie
    )
    await until(lambda: operated.status("shared"), lambda status: status["desiredReplicas"] == 1, 10.0)
    await operated.until_ready("shared", 1)
    assert operated.uids("shared") == pods  # a status that lies costs no worker
    await operated.remove("shared")


async def _killed_at_random_points(
    operated: Operated, operator: ServiceProcess, client: Client, moments: random.Random, kills: int
) -> None:
    """Generations come all the while, the pool grows and shrinks, and the operator is killed again and again."""
    operated.apply("killed", image="wan22/slow:1", scaling={"maxReplicas": 4, "idleHoldSeconds": 1})
    await until(lambda: operated.condition("killed", "Declared"), lambda found: found == "Declared")
    names: list[str] = []
    for _ in range(kills):
        asked = [await operated.create(client, "killed", moments.randrange(1, 4)) for _ in range(moments.randrange(3))]
        names += [one.name for one in asked]
        await operator.until("live")
        await asyncio.sleep(moments.uniform(0.0, 2.0))  # a point of its life: all of them are hit in the long run
        operator.kill()
        operator.start()
    await operator.until()
    ends = [await client.wait(name) for name in names]
    assert {end.state for end in ends} <= {Generation.SUCCEEDED}
    assert [end.attempt_count for end in ends] == [1] * len(names)  # nobody's worker was taken
    await until(lambda: operated.states("killed"), lambda found: not found)
    assert operated.status("killed")["desiredReplicas"] == 0
    await operated.remove("killed")


async def test_an_operator_killed_at_random_points_takes_no_worker_from_its_generation(
    operated: Operated, operator: ServiceProcess, client: Client, moments: random.Random
) -> None:
    await _killed_at_random_points(operated, operator, client, moments, FEW_KILLS)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_an_operator_killed_fifty_times_takes_no_worker_from_its_generation(
    operated: Operated, operator: ServiceProcess, client: Client, moments: random.Random
) -> None:
    await _killed_at_random_points(operated, operator, client, moments, MANY_KILLS)


async def _without_a_gateway(operated: Operated, client: Client, seconds: float) -> None:
    """The gateway is paused, which leaves every connection half-open and keeps its ports, and then killed."""
    gateway = operated.installation.gateway
    operated.apply("blind", scaling={"minReplicas": 2, "maxReplicas": 2})
    pods = await operated.until_ready("blind", 2)
    gateway.pause()
    try:
        operated.apply("blind", scaling={"minReplicas": 1, "maxReplicas": 2, "idleHoldSeconds": 0})
        await until(lambda: operated.condition("blind", "ScalingActive"), lambda found: found == "Blind")
        await asyncio.sleep(seconds)  # the outage is what is tested
        assert operated.uids("blind") == pods
        gateway.kill()
        operated.apply("blind", scaling={"minReplicas": 3, "maxReplicas": 3})
        await until(lambda: operated.uids("blind"), lambda found: found.items() > pods.items())  # it may grow
        operated.apply("blind", scaling={"minReplicas": 1, "maxReplicas": 3, "idleHoldSeconds": 0})
    finally:
        if gateway.running:
            gateway.kill()
        gateway.start()
    await gateway.until()
    await until(lambda: len(operated.uids("blind")), lambda count: count == 1)
    asked = await operated.create(client, "blind")
    assert (await client.wait(asked.name)).state == Generation.SUCCEEDED
    await operated.remove("blind")


async def test_no_worker_is_removed_on_stale_figures_nor_while_the_gateway_is_away(
    operated: Operated, operator: ServiceProcess, client: Client
) -> None:
    await _without_a_gateway(operated, client, SHORT_OUTAGE)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_no_worker_is_removed_while_the_gateway_is_away_for_five_minutes(
    operated: Operated, operator: ServiceProcess, client: Client
) -> None:
    await _without_a_gateway(operated, client, LONG_OUTAGE)


async def test_an_api_server_that_comes_back_without_its_history_is_watched_again(
    operated: Operated, operator: ServiceProcess, node_plane: ControlPlane
) -> None:
    """As 410 was not handled in client-python issue 502."""
    operated.apply("before", scaling={"minReplicas": 1, "maxReplicas": 1})
    pods = await operated.until_ready("before", 1)
    version, said = operated.get("before")["metadata"]["resourceVersion"], len(operator.log.read_text())
    node_plane.api_server.kill()
    node_plane.forget_history()
    node_plane.api_server.start()
    await asyncio.to_thread(node_plane.api_server.wait_until_ready)
    query = f"wanpools?watch=true&timeoutSeconds=5&resourceVersion={version}"
    assert '"code":410' in operated.kubectl("get", "--raw", f"/apis/wan22.dev/v1alpha1/namespaces/{NAMESPACE}/{query}")
    await until(lambda: operator.log.read_text()[said:], lambda text: "expired (410)" in text, 90.0)
    operated.apply("after", scaling={"minReplicas": 1, "maxReplicas": 1})
    await operated.until_ready("after", 1)
    assert operated.uids("before") == pods
    assert operator.running
    told = operator.log.read_text()[said:]
    assert told.count("Watches are lost") == 1
    assert "Request attempt" not in told
    await operated.remove("before", "after")


@pytest.mark.long
async def test_two_operators_at_once_are_one_and_the_other_takes_over(
    operated: Operated, operator: ServiceProcess
) -> None:
    operated.apply("taken", scaling={"minReplicas": 1, "maxReplicas": 2})
    pods = await operated.until_ready("taken", 1)
    second = operated.operator("second")
    second.start()
    try:
        await second.until()
        holder = ("get", "lease", LEASE, *operated.inside, "--output", "jsonpath={.spec.holderIdentity}")
        assert operated.kubectl(*holder) == "operator"
        operator.pause()  # longer than its Lease
        await until(lambda: operated.kubectl(*holder), lambda name: name == "second")
        operated.apply("taken", scaling={"minReplicas": 2, "maxReplicas": 2})
        both = await operated.until_ready("taken", 2)
        assert pods.items() < both.items()
        operator.resume()  # it may still want to write what it decided before
        await asyncio.to_thread(operator.stop, 20.0)
        assert operated.uids("taken") == both
        assert operated.kubectl(*holder) == "second"
    finally:
        second.kill()
        operator.start()
    await operator.until()
    await operated.remove("taken")


@pytest.mark.long
async def test_two_operators_that_know_nothing_of_each_other_make_no_worker_too_many(
    operated: Operated, operator: ServiceProcess
) -> None:
    """Safety does not rest on the Lease: as if each held it."""
    role = ("role", LEASE, *operated.inside, "--type=json", "--patch")
    any_lease = [{"op": "remove", "path": "/rules/0/resourceNames"}]
    operated.kubectl("patch", *role, json.dumps(any_lease))
    second = operated.operator("rival", lease_name="another")
    second.start()
    try:
        await second.until()
        operated.apply("split", scaling={"minReplicas": 3, "maxReplicas": 3})
        three = await operated.until_ready("split", 3)
        assert sorted(three) == ["split-0", "split-1", "split-2"]
        operated.apply("split", scaling={"minReplicas": 1, "maxReplicas": 3, "idleHoldSeconds": 0})
        one = await until(lambda: operated.uids("split"), lambda found: len(found) == 1)
        await until(lambda: operated.status("split")["desiredReplicas"], lambda found: found == 1)
        assert operated.uids("split") == one
        assert one.items() < three.items()
    finally:
        second.kill()
    await operated.remove("split")


@pytest.mark.long
async def test_a_node_that_is_gone_for_good_takes_its_workers_along(
    operated: Operated, operator: ServiceProcess, kubelet: ProcessKubelet
) -> None:
    operated.apply("gone", scaling={"minReplicas": 1, "maxReplicas": 1})
    await operated.until_ready("gone", 1)
    node = operated.status("gone")["workers"][0]["node"]
    kubelet.kill_node(node)
    await until(lambda: operated.states("gone"), lambda found: found.get("gone-1") == "Idle", 90.0)
    operated.kubectl("delete", "node", node)  # as an administrator, or the cloud, does with a machine that is lost
    await until(lambda: operated.states("gone"), lambda found: found == {"gone-1": "Idle"}, 120.0)
    await operated.remove("gone")
