"""Local volumes stay on their node: what is on a drained one waits for it, is said to, and loses nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .caller import Caller
from .release import Release, until

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]


def waits_because(pod: dict[str, Any]) -> str:
    """What the cluster says of a pod that has no place, or nothing."""
    conditions = {one["type"]: one for one in pod["status"].get("conditions", [])}
    return str(conditions.get("PodScheduled", {}).get("message", ""))


def stays_on_its_node(release: Release, claim: str) -> bool:
    """Whether a claim's volume is a local one."""
    volume = release.kubectl.get("persistentvolumeclaim", claim, *release.inside)["spec"]["volumeName"]
    return "kubernetes.io/hostname" in json.dumps(release.kubectl.get("persistentvolume", volume)["spec"])


def test_what_is_on_a_drained_nodes_volumes_is_said_to_wait_and_goes_on_there(
    release: Release, caller: Caller, pool: str
) -> None:
    if release.caches < 2 or not stays_on_its_node(release, f"models-{release.name}-registry-0"):
        pytest.skip("the cluster has one node, or volumes that go along with their pods")
    release.apply(pool)
    names = caller.queue(2, pool, "--steps=100", "--frames=5")
    (registry,) = release.pods("registry")
    node = registry["spec"]["nodeName"]
    release.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=580s")
    try:
        (message,) = until(
            lambda: [waits_because(pod) for pod in release.pods("registry")], lambda said: said != [""] and bool(said)
        )
        assert "volume node affinity" in message or "unschedulable" in message
        caches = [pod for pod in release.pods("node-cache") if "nodeName" not in pod["spec"]]
        assert [bool(waits_because(pod)) for pod in caches] == [True]
        until(
            lambda: release.condition(pool, "ModelResolved") + release.condition(pool, "Declared"),
            lambda reasons: "Unavailable" in reasons,
        )
    finally:
        release.kubectl("uncordon", node)
    until(lambda: [release.ready(part) for part in ("registry", "gateway", "node-cache")], lambda n: n == [1, 1, 2])
    done = until(
        lambda: caller.generations(pool), lambda found: all(one["state"] == "SUCCEEDED" for one in found.values())
    )
    assert set(done) == set(names)
