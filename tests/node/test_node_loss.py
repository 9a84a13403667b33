"""A node that is drained, or crashes, under a generation: it is resumed on the other one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wan22_testing.nodes.cluster import NodeCluster

from .caller import Caller
from .release import GPU, Release, until
from .test_worker_loss import AT_ONCE, LONG, STEP, check_it_went_on, until_step

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]


@pytest.fixture
def abroad(release: Release, caller: Caller) -> Iterator[str]:
    """A node without the gateway, which is whole again after the test; the registry may be there, and is waited for."""
    if release.caches < 2 or not release.gpus:
        pytest.skip("the cluster has no two nodes with GPUs")
    home = {pod["spec"]["nodeName"] for pod in release.pods("gateway")}
    name = min({node["metadata"]["name"] for node in release.kubectl.get("nodes")["items"]} - home)
    caller.leave(name)
    yield name
    release.kubectl("uncordon", name)
    release.kubectl("wait", "--for=condition=Ready", f"node/{name}", "--timeout=580s")
    until(
        lambda: [release.ready(part) for part in ("node-cache", "registry")], lambda ready: ready == [release.caches, 1]
    )


def generation_on(abroad: str, release: Release, caller: Caller, pool: str) -> str:
    """A generation that is well under way on the node; there is a worker on each, and the other may be busy, too."""
    node = release.kubectl.get("node", abroad)
    whole = int(node["status"]["allocatable"][GPU])  # so that no node takes two workers
    release.apply(pool, engine={"gpusPerWorker": whole}, scaling={"minReplicas": 2, "maxReplicas": 2}, **AT_ONCE)
    until(lambda: release.status(pool)["readyReplicas"], lambda ready: ready == 2)
    (there,) = [name for name, pod in release.workers(pool).items() if pod["spec"]["nodeName"] == abroad]
    (name,) = caller.queue(1, pool, *LONG)
    if there not in until(lambda: release.busy(pool), bool):  # the one at home took it: the next one is for this one
        (name,) = caller.queue(1, pool, *LONG)
        until(lambda: release.busy(pool), lambda busy: there in busy)
    until_step(caller, name, pool, STEP)
    return name


def test_a_generation_on_a_drained_node_is_resumed_on_the_other(
    release: Release, caller: Caller, pool: str, abroad: str
) -> None:
    name = generation_on(abroad, release, caller, pool)
    release.kubectl("drain", abroad, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=580s")
    check_it_went_on(caller, name, pool, *LONG)
    assert abroad not in {pod["spec"].get("nodeName") for pod in release.workers(pool).values()}


def test_a_generation_on_a_crashed_node_is_resumed_on_the_other(
    release: Release, caller: Caller, pool: str, abroad: str, nodes: NodeCluster
) -> None:
    name = generation_on(abroad, release, caller, pool)
    nodes.crash(abroad)
    try:
        check_it_went_on(caller, name, pool, *LONG)
        states = {worker["state"] for worker in release.status(pool)["workers"]}
        assert "Lost" in states
    finally:
        nodes.boot(abroad)
    until(lambda: release.status(pool)["readyReplicas"], lambda ready: ready == 2)
