"""Hundreds of pools, thousands of workers: what a round costs, how soon a change is followed, and memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from wan22.errors import FailedPrecondition
from wan22_testing.cluster.api import Api
from wan22_testing.cluster.control_plane import ControlPlane
from wan22_testing.cluster.programs import CONTROLLERS, Programs
from wan22_testing.service_process import ServiceProcess, free_port

from .operated import CRDS, Operated, operated_on
from .scale import Scene, said

CACHE = "crowd"
AT_ONCE = 100
"""Pools of one call of kubectl, which has a minute."""
PROMPT: dict[str, object] = {"kube-api-qps": 500, "kube-api-burst": 1000}
"""Else the controllers and the scheduler have themselves wait: 20 and 50 calls a second are their defaults."""

NOT_NEEDED = {"controllers": "*,-endpoints-controller,-endpointslice-controller"}
"""Each change of a pod is two writes of theirs, and nobody here looks for a Service's addresses."""


@contextmanager
def plane_of(folder: Path, programs: Programs) -> Iterator[ControlPlane]:
    """A control plane for one test, which takes thousands of objects with it when it ends."""
    try:
        programs.require(*CONTROLLERS)
    except FailedPrecondition as error:
        pytest.skip(error.message)
    flags: Any = {"controller_manager": PROMPT | NOT_NEEDED, "scheduler": PROMPT}
    with ControlPlane(folder / "plane", programs, **flags) as plane:
        kubectl = plane.kubectl()
        kubectl("apply", "--server-side", "--filename", str(CRDS))
        kubectl("wait", "--for=condition=Established", "crd/wanpools.wan22.dev", "crd/wanmodels.wan22.dev")
        yield plane


@asynccontextmanager
async def crowd_of(plane: ControlPlane, folder: Path, nodes: int) -> AsyncIterator[ServiceProcess]:
    """Nodes that are registered, with room for 250 workers each."""
    log, place = folder / "crowd.log", folder / "nodes"
    crowd = ServiceProcess("wan22_testing.crowd", log, kubeconfig=plane.kubeconfig, folder=place, nodes=nodes)
    crowd.start()
    try:
        await crowd.until()
        yield crowd
    finally:
        crowd.kill()


def put_cache(operated: Operated, folder: Path) -> None:
    """One claim that all workers share, as of a network's file system: volumes of their own are not what is tried."""
    access = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = {**access, "capacity": {"storage": "1Ti"}, "hostPath": {"path": str(folder / "cache")}}
    claim = {**access, "volumeName": CACHE, "resources": {"requests": {"storage": "1Ti"}}}
    place = {"name": CACHE, "namespace": operated.namespace}
    items = [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": CACHE}, "spec": volume},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": place, "spec": claim},
    ]
    manifest = {"apiVersion": "v1", "kind": "List", "items": items}
    operated.kubectl("apply", "--server-side", "--filename=-", manifest=manifest)


@asynccontextmanager
async def many(
    plane: ControlPlane, programs: Programs, folder: Path, count: int, pools: dict[str, Any], **settings: Any
) -> AsyncIterator[Scene]:
    """So many pools, and an operator with these settings that is started then and has told its gateway of all."""
    given: Any = {"resync_seconds": 15, "lease_seconds": 60, "http_port": free_port(), **settings}
    async with (
        operated_on(plane, programs, folder, "operator-many", worker_lease_seconds=60) as operated,
        Api(plane.kubeconfig) as api,
    ):
        put_cache(operated, folder)
        operator = operated.operator(**given)
        scene = Scene(operated, operator, api, count)
        following = [asyncio.create_task(part.run()) for part in (scene.followed.pools, scene.followed.pods)]
        names = [f"pool-{number:04}" for number in range(count)]
        for first in range(0, count, AT_ONCE):
            some = names[first : first + AT_ONCE]
            await asyncio.to_thread(operated.apply, *some, cache={"claimName": CACHE}, **pools)
        began = time.monotonic()
        operator.start()
        try:
            await scene.followed.until(lambda: scene.followed.declared == count, 900.0)
            said(f"{count} pools declared in {time.monotonic() - began:.1f} s")
            yield scene
            assert await asyncio.to_thread(operator.stop) == 0
        finally:
            for task in following:
                task.cancel()
            if operator.running:
                operator.kill()


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", [200, 1000])
async def test_hundreds_of_pools_are_looked_after_at_little_cost(
    programs: Programs, tmp_path: Path, count: int
) -> None:
    with plane_of(tmp_path, programs) as plane:
        async with many(plane, programs, tmp_path, count, {"scaling": {"maxReplicas": 2}}) as scene:
            await scene.at_rest()


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_two_hundred_pools_have_a_worker_each_at_little_cost(programs: Programs, tmp_path: Path) -> None:
    """Simulated workers that a real gateway asks who they are, all in one process."""
    pools = {"image": "wan22/worker:1", "scaling": {"minReplicas": 1, "maxReplicas": 1}}
    with plane_of(tmp_path, programs) as plane:
        async with crowd_of(plane, tmp_path, 1), many(plane, programs, tmp_path, 200, pools) as scene:
            await scene.all_ready(1, 900.0)
            await scene.at_rest()


@pytest.mark.timeout(5400)
@pytest.mark.parametrize(
    ("count", "changes", "resync_seconds"),
    [
        (10, 5, 2),
        pytest.param(200, 50, 15, marks=pytest.mark.long),
        pytest.param(1000, 100, 15, marks=pytest.mark.long),
    ],
)
async def test_pools_of_five_workers_each_are_looked_after_at_little_cost(
    programs: Programs, tmp_path: Path, count: int, changes: int, resync_seconds: int
) -> None:
    """Up to five thousand workers, played for a gateway that is played, too: two cores carry no real ones."""
    each = 5
    pools = {"image": "wan22/played:1", "scaling": {"minReplicas": each, "maxReplicas": each}}
    with plane_of(tmp_path, programs) as plane:
        async with crowd_of(plane, tmp_path, 1 + count * (each + 1) // 250) as crowd:
            settings = {"gateway": crowd.address, "resync_seconds": resync_seconds}
            async with many(plane, programs, tmp_path, count, pools, **settings) as scene:
                await scene.all_ready(each, 3600.0)
                await scene.at_rest()
                await scene.follows(changes, each, each + 1)
                await scene.anew()
                await scene.at_rest()
