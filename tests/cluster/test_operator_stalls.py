"""An API server that stops for half a minute and keeps every connection open, while workers work and demand changes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from wan22.client import Client
from wan22.v1.generation_pb2 import Generation
from wan22_testing.cluster.api import Api
from wan22_testing.cluster.control_plane import ControlPlane
from wan22_testing.cluster.reflector import Reflector
from wan22_testing.process_kubelet.images import Image
from wan22_testing.process_kubelet.node import NodeSpec
from wan22_testing.service_process import ServiceProcess

from .operated import SIMULATED, Operated, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAMESPACE = "operator-stalls"
NODES = [NodeSpec(name, gpus=2) for name in ("stalls-one", "stalls-two")]
SETTINGS: dict[str, object] = {}
STEP_SECONDS = 1.5
IMAGES = {"wan22/worker": Image((*SIMULATED, "--time-scale", "0.01", "--step-seconds", str(STEP_SECONDS)))}
STALL_SECONDS = 30.0
SHORT, LONG = 4, 40
"""Steps of a generation that ends within the stall, and of one that outlasts it."""


@asynccontextmanager
async def restarted(operator: ServiceProcess) -> AsyncIterator[list[int]]:
    """An operator that is started, and again whenever it ends, as a kubelet does; how it ended is listed."""
    ends: list[int] = []

    async def keep() -> None:
        while True:
            ends.append(await asyncio.to_thread(operator.wait, 600.0))
            operator.start()

    operator.start()
    keeping = asyncio.create_task(keep())
    try:
        await operator.until()
        yield ends
    finally:
        keeping.cancel()
        operator.kill()


class Names:
    """Which pods there ever were, as a watch tells, by name."""

    def __init__(self, api: Api) -> None:
        self.uids: defaultdict[str, set[str]] = defaultdict(set)
        self.reflector = Reflector(api, f"/api/v1/namespaces/{NAMESPACE}/pods", seen=self._see)

    def _see(self, pod: dict[str, Any]) -> None:
        self.uids[pod["metadata"]["name"]].add(pod["metadata"]["uid"])


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("lease_seconds", "restarts"), [pytest.param(90, False, id="held"), pytest.param(9, True, id="lost")]
)
async def test_nothing_is_lost_or_doubled_while_the_api_server_stalls(
    operated: Operated, client: Client, node_plane: ControlPlane, lease_seconds: int, restarts: bool
) -> None:
    """With a Lease that outlasts the stall the operator goes on; one that has lost it ends, and is started again."""
    pool = f"stalled-{lease_seconds}"
    operator = operated.operator(f"operator-{lease_seconds}", lease_seconds=lease_seconds)
    async with Api(node_plane.kubeconfig) as api, restarted(operator) as ends:
        names = Names(api)
        following = asyncio.create_task(names.reflector.run())
        operated.apply(pool, scaling={"maxReplicas": 4, "idleHoldSeconds": 1})
        await until(lambda: operated.condition(pool, "Declared"), lambda found: found == "Declared")
        asked = [await operated.create(client, pool, steps) for steps in (LONG, LONG, SHORT)]
        await until(lambda: list(operated.states(pool).values()), lambda found: found.count("Busy") >= 2)
        before = operated.uids(pool)
        node_plane.api_server.pause()
        try:
            await asyncio.sleep(STALL_SECONDS / 3)  # the stall is what is tested
            asked += [await operated.create(client, pool, steps) for steps in (SHORT, LONG, SHORT, SHORT)]
            await asyncio.sleep(2 * STALL_SECONDS / 3)
        finally:
            node_plane.api_server.resume()
        after = operated.uids(pool)
        assert after == before
        final = [await client.wait(one.name) for one in asked]
        assert {one.state for one in final} == {Generation.SUCCEEDED}
        assert [one.attempt_count for one in final] == [1] * len(final)
        await until(lambda: operated.states(pool), lambda found: not found)
        assert operated.status(pool)["desiredReplicas"] == 0
        assert [len(uids) for uids in names.uids.values()] == [1] * len(names.uids), "no name is used twice"
        assert operated.status(pool)["nextOrdinal"] == len([one for one in names.uids if one.startswith(pool)])
        assert bool(ends) is restarts
        following.cancel()
        await operated.remove(pool)
