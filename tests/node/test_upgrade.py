"""`helm upgrade` under load: what was accepted is made, once, and no worker is restarted."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from wan22.errors import FailedPrecondition
from wan22_testing import previous_release
from wan22_testing.chart import CHART, ROOT
from wan22_testing.cluster.helm import Helm
from wan22_testing.cluster.kubectl import Kubectl
from wan22_testing.cluster.programs import Programs
from wan22_testing.images.other_packages import write_with_packages
from wan22_testing.nodes.cluster import NodeCluster

from .caller import Caller
from .images import BUILT, SERVICES, Images
from .release import SECONDS, T2V, Release, until

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]


def test_an_upgrade_with_another_value_loses_nothing_and_restarts_no_worker(
    release: Release, caller: Caller, pool: str
) -> None:
    release.apply(pool, scaling={"minReplicas": 1, "maxReplicas": 1})
    until(lambda: release.status(pool)["readyReplicas"], lambda ready: ready == 1)
    before = {name: pod["metadata"]["uid"] for name, pod in release.workers(pool).items()}
    (gateway,) = release.pods("gateway")
    names = caller.queue(4, pool, "--steps=60", "--frames=5")
    values = release.values()
    values["gateway"]["settings"] = {"queue_limit": 321}
    values["operator"]["gpuBudget"] = 5
    release.helm("upgrade", values=values)
    (upgraded,) = release.pods("gateway")
    assert upgraded["metadata"]["uid"] != gateway["metadata"]["uid"]
    done = until(
        lambda: caller.generations(pool), lambda found: all(one["state"] == "SUCCEEDED" for one in found.values())
    )
    assert {name: done[name]["attempt_count"] for name in names} == dict.fromkeys(names, 1)
    assert {name: pod["metadata"]["uid"] for name, pod in release.workers(pool).items()} == before


SLOW = {"WAN22_WORKER_TIME_SCALE": "15"}
"""Seconds of a generation."""


@pytest.fixture
def before(nodes: NodeCluster, images: Images, tmp_path: Path) -> tuple[Images, Path]:
    """Images of the release before, on today's dependencies, and its chart."""
    try:
        packages = previous_release.packages()
    except FailedPrecondition as error:
        pytest.skip(error.message)
    older = Images(images.repository, f"v{previous_release.VERSION}", images.pull_policy)
    for name in SERVICES:
        archive = tmp_path / f"{name}-{older.tag}.tar"
        slow = SLOW if name == "simulated-worker" else {}
        write_with_packages(BUILT / f"{name}.tar", packages, older.name(name), archive, slow)
        nodes.load([archive])
        archive.unlink()
    tar = tmp_path / "chart.tar"
    folder = CHART.relative_to(ROOT)
    asked = ["git", "archive", "--output", str(tar), previous_release.COMMIT, str(folder)]
    subprocess.run(asked, cwd=ROOT, check=True)
    subprocess.run(["tar", "-xf", str(tar), "-C", str(tmp_path)], check=True)
    return older, tmp_path / folder


async def test_an_upgrade_from_the_release_before_loses_nothing_and_restarts_no_worker(
    kubectl: Kubectl, release: Release, images: Images, before: tuple[Images, Path], tmp_path: Path
) -> None:
    older, chart = before
    helm = Helm(Programs.find(), kubectl.kubeconfig, seconds=SECONDS)
    upgraded = Release(kubectl, helm, older, tmp_path, "upgraded")
    caller, pool = Caller(upgraded), "t2v"
    upgraded.create_namespace()
    values = upgraded.values()
    values["crds"] = {"install": False}  # of the cluster's other release
    values["workers"].pop("settings")  # unknown to it
    values["operator"]["extraEnv"] = [{"name": "USER", "value": "wan22"}]  # which it looks for
    values["nodeCache"] = {"enabled": False}
    upgraded.helm("install", chart=chart, values=values)
    await upgraded.push(T2V)
    caller.create()
    upgraded.apply(pool, cache={"size": "1Gi"}, scaling={"minReplicas": 1, "maxReplicas": 1})
    until(lambda: upgraded.status(pool)["readyReplicas"], lambda ready: ready == 1)
    workers = {name: pod["metadata"]["uid"] for name, pod in upgraded.workers(pool).items()}
    names = caller.queue(4, pool, "--steps=4", "--frames=5")
    values["image"] = images.values()["image"]
    values["workers"] = images.values()["workers"]
    upgraded.helm("upgrade", values=values)
    names += caller.queue(2, pool, "--steps=4", "--frames=5")
    done = until(
        lambda: caller.generations(pool), lambda found: all(one["state"] == "SUCCEEDED" for one in found.values())
    )
    assert {name: done[name]["attempt_count"] for name in names} == dict.fromkeys(names, 1)
    assert {name: pod["metadata"]["uid"] for name, pod in upgraded.workers(pool).items()} == workers
    upgraded.delete_pool(pool)
    caller.delete()
    kubectl("delete", "namespace", upgraded.namespace, "--timeout=580s")
