"""`helm upgrade` from the release before, and back, under load: what was accepted is made, once, by one worker."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from wan22.errors import FailedPrecondition
from wan22_testing import postgres, previous_release
from wan22_testing.chart import CHART, ROOT
from wan22_testing.cluster.kubectl import Kubectl
from wan22_testing.images.other_packages import write_with_packages
from wan22_testing.nodes.cluster import NodeCluster

from .caller import Caller
from .images import BUILT, SERVICES, Images
from .release import T2V, Release, until
from .shared_store import SharedStore

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]
SLOW = {"WAN22_WORKER_TIME_SCALE": "15"}
"""Seconds of a generation."""
SHORT = ("--steps=4", "--frames=5")


@pytest.fixture(scope="module")
def before(nodes: NodeCluster, images: Images, tmp_path_factory: pytest.TempPathFactory) -> tuple[Images, Path]:
    """Images of the release before, on today's dependencies, and its chart."""
    try:
        packages = previous_release.packages()
    except FailedPrecondition as error:
        pytest.skip(error.message)
    folder = tmp_path_factory.mktemp("before")
    older = Images(images.repository, f"v{previous_release.VERSION}", images.pull_policy)
    for name in SERVICES:
        archive = folder / f"{name}-{older.tag}.tar"
        slow = SLOW if name == "simulated-worker" else {}
        write_with_packages(BUILT / f"{name}.tar", packages, older.name(name), archive, slow)
        nodes.load([archive])
        archive.unlink()
    tar = folder / "chart.tar"
    chart = CHART.relative_to(ROOT)
    asked = ["git", "archive", "--output", str(tar), previous_release.COMMIT, str(chart)]
    subprocess.run(asked, cwd=ROOT, check=True)
    subprocess.run(["tar", "-xf", str(tar), "-C", str(folder)], check=True)
    return older, folder / chart


class Upgraded:
    """A release that was installed by the chart before, with one worker at work."""

    POOL = "t2v"

    def __init__(self, release: Release, older: Images, chart: Path) -> None:
        self.release = release
        self.caller = Caller(release)
        self._older = older
        self._chart = chart
        self._names: list[str] = []
        self._workers: dict[str, str] = {}

    async def install(self, **values: Any) -> None:
        """Installs it with values beside the suite's usual ones, and puts it to work."""
        release = self.release
        self._values = release.values()
        self._values["workers"].pop("settings")  # unknown to it
        self._values["operator"]["extraEnv"] = [{"name": "USER", "value": "wan22"}]  # which it looks for
        self._values["nodeCache"] = {"enabled": False}
        for part, given in values.items():
            self._values[part] = {**self._values.get(part, {}), **given}
        release.helm("install", chart=self._chart, values=self._values)
        await release.push(T2V)
        self.caller.create()
        release.apply(self.POOL, cache={"size": "1Gi"}, scaling={"minReplicas": 1, "maxReplicas": 1})
        until(lambda: release.status(self.POOL)["readyReplicas"], lambda ready: ready == 1)
        self._workers = self._uids()
        self.accept(4)

    def upgrade(self, images: Images) -> None:
        """To today's chart and images."""
        self._values["image"] = images.values()["image"]
        self._values["workers"] = images.values()["workers"]
        self.release.helm("upgrade", values=self._values)

    def accept(self, count: int) -> None:
        """Has more generations accepted, one after the other; all of them are to be made."""
        self._names += self.caller.queue(count, self.POOL, *SHORT)

    def check_nothing_is_lost(self) -> None:
        """All that was accepted is made, in one attempt each, by the worker that was there before."""
        find = self.caller.generations
        done = until(lambda: find(self.POOL), lambda found: {one["state"] for one in found.values()} == {"SUCCEEDED"})
        assert {name: done[name]["attempt_count"] for name in self._names} == dict.fromkeys(self._names, 1)
        assert self._uids() == self._workers

    def delete(self) -> None:
        """Removes all of it."""
        release = self.release
        if release.kubectl("get", "wanpools", *release.inside, "--output=name"):
            release.delete_pool(self.POOL)
        for namespace in (release.namespace, f"{release.name}-callers"):
            release.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=580s")

    def _uids(self) -> dict[str, str]:
        return {name: pod["metadata"]["uid"] for name, pod in self.release.workers(self.POOL).items()}


@pytest.fixture
def upgraded(kubectl: Kubectl, release: Release, before: tuple[Images, Path], tmp_path: Path) -> Iterator[Upgraded]:
    older, chart = before
    made = Upgraded(Release(kubectl, older, tmp_path, "upgraded"), older, chart)
    made.release.create_namespace()
    yield made
    made.delete()


@pytest.fixture
def shared_store(tmp_path: Path) -> Iterator[SharedStore]:
    if postgres.programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with SharedStore.serving(tmp_path) as store:
        yield store


async def test_an_upgrade_from_the_release_before_loses_nothing_and_restarts_no_worker(
    upgraded: Upgraded, images: Images
) -> None:
    await upgraded.install()
    upgraded.upgrade(images)
    upgraded.accept(2)
    upgraded.check_nothing_is_lost()


async def test_gateways_on_postgresql_are_upgraded_and_rolled_back_while_they_accept_and_lose_nothing(
    upgraded: Upgraded, images: Images, kubectl: Kubectl, shared_store: SharedStore
) -> None:
    release = upgraded.release
    shared_store.create_secrets(kubectl, release.namespace)
    await upgraded.install(gateway=shared_store.gateway(), networkPolicy=shared_store.network_policy())
    assert shared_store.revision() == "0001"
    with ThreadPoolExecutor(1) as thread:
        load = thread.submit(upgraded.accept, 6)
        upgraded.upgrade(images)
        load.result()
    assert shared_store.revision() > "0001"
    until(lambda: release.ready("gateway"), lambda ready: ready == 2)  # those before have left
    with ThreadPoolExecutor(1) as thread:
        load = thread.submit(upgraded.accept, 4)
        release.roll_back()
        load.result()
    upgraded.check_nothing_is_lost()
