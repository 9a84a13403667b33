"""A node that never comes back: what was on its disks waits, until it is re-homed as docs/operations.md says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from wan22_testing.cluster.kubectl import Kubectl
from wan22_testing.nodes.cluster import NodeCluster
from wan22_testing.nodes.volumes import recycle

from .caller import Caller
from .images import Images
from .release import T2V, Release, until
from .test_volumes import waits_because

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]
NODE = "kubernetes.io/hostname"
POOL = "t2v"
SHORT = ("--steps=4", "--frames=5")


@pytest.fixture
def gone(nodes: NodeCluster, release: Release) -> Iterator[str]:
    """The node that goes; a new machine of its name is there after the test."""
    name = nodes.layout.nodes[-1].name
    yield name
    if f"node/{name}" not in release.kubectl("get", "nodes", "--output=name").split():
        nodes.boot(name)
    parts = {"gateway": 1, "registry": 1, "node-cache": 2}
    until(lambda: {part: release.ready(part) for part in parts}, lambda ready: ready == parts)


@pytest.fixture
def rehomed(nodes: NodeCluster, kubectl: Kubectl, images: Images, gone: str, tmp_path: Path) -> Iterator[Release]:
    """A release whose gateway stays, and whose registry would rather be where the node goes."""
    stays = {NODE: next(place.name for place in nodes.layout.nodes if place.name != gone)}
    made = Release(kubectl, images, tmp_path, "rehomed")
    values = made.values()
    values["gateway"]["nodeSelector"] = values["operator"]["nodeSelector"] = stays
    there = {"matchExpressions": [{"key": NODE, "operator": "In", "values": [gone]}]}
    rather = [{"weight": 100, "preference": there}]
    values["registry"]["affinity"] = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": rather}}
    with made.installed(T2V, values=values):
        yield made


@pytest.fixture
def asking(rehomed: Release, gone: str) -> Iterator[Caller]:
    with Caller.of(rehomed) as made:
        made.leave(gone)
        yield made


def waiting(release: Release, component: str) -> dict[str, str]:
    """The pods of a component that have no node, by name: what the cluster says of them."""
    pods = [pod for pod in release.pods(component) if "nodeName" not in pod["spec"]]
    return {pod["metadata"]["name"]: waits_because(pod) for pod in pods}


def rehome(release: Release, volume: str, pod: str) -> None:
    """Lets go of the volume that a pod waits for."""
    release.kubectl("delete", "persistentvolumeclaim", f"{volume}-{pod}", *release.inside, "--wait=false")
    release.kubectl("delete", "pod", pod, *release.inside, "--timeout=580s")


def test_what_was_on_a_node_that_is_gone_waits_is_said_to_and_is_re_homed(
    rehomed: Release, asking: Caller, gone: str, nodes: NodeCluster
) -> None:
    (registry,) = rehomed.pods("registry")
    assert registry["spec"]["nodeName"] == gone
    rehomed.apply(POOL)
    asking.events(*asking.queue(1, POOL, *SHORT))
    nodes.crash(gone)
    rehomed.kubectl("delete", "node", gone)

    for component in ("registry", "node-cache"):
        message = until(partial(waiting, rehomed, component), lambda said: any(said.values()))
        assert ["node affinity" in said for said in message.values()] == [True], message
    until(lambda: rehomed.condition(POOL, "ModelResolved"), lambda reason: "Unavailable" in reason)

    (registry_pod,) = waiting(rehomed, "registry")
    rehome(rehomed, "models", registry_pod)
    until(lambda: rehomed.ready("registry"), lambda ready: ready == 1)
    asyncio.run(rehomed.push(T2V))  # the same files are the same version
    until(lambda: rehomed.condition(POOL, "ModelResolved"), lambda reason: "Unavailable" not in reason)
    asking.events(*asking.queue(1, POOL, *SHORT))
    assert {one["state"] for one in asking.generations(POOL).values()} == {"SUCCEEDED"}

    (cache_pod,) = waiting(rehomed, "node-cache")
    rehome(rehomed, "cache", cache_pod)
    recycle(nodes.layout, rehomed.kubectl)  # a new disk
    nodes.boot(gone)
    until(lambda: rehomed.ready("node-cache"), lambda ready: ready == 2)
    (there,) = [pod for pod in rehomed.pods("node-cache") if pod["metadata"]["name"] == cache_pod]
    assert there["spec"]["nodeName"] == gone
