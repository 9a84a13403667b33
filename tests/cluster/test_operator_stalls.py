"""An API server that stops for half a minute and keeps every connection open, while workers work and demand changes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine
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
SCALING = {"maxReplicas": 4, "objectiveSeconds": 1, "idleHoldSeconds": 5}
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
    try:
        async with in_the_background(keep()):
            await operator.until()
            yield ends
        assert await asyncio.to_thread(operator.stop) == 0
    finally:
        if operator.running:
            operator.kill()


@asynccontextmanager
async def in_the_background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()


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
    ("lease_seconds", "restarts"), [pytest.param(9, True, id="lost"), pytest.param(90, False, id="held")]
)
async def test_nothing_is_lost_or_doubled_while_the_api_server_stalls(
    operated: Operated, client: Client, node_plane: ControlPlane, lease_seconds: int, restarts: bool
) -> None:
    """With a Lease that outlasts the stall the operator goes on; one that has lost it ends, and is started again."""
    pool = f"stalled-{lease_seconds}"
    operator = operated.operator(f"operator-{lease_seconds}", lease_seconds=lease_seconds)
    async with Api(node_plane.kubeconfig) as api, restarted(operator) as ends:
        names = Names(api)
        async with in_the_background(names.reflector.run()):
            operated.apply(pool, scaling=SCALING)
            await until(lambda: operated.condition(pool, "Declared"), lambda found: found == "Declared")
            first = await operated.create(client, pool, SHORT)
            await client.wait(first.name)  # from now on it is known how long a step takes
            asked = [first, *[await operated.create(client, pool, LONG) for _ in range(2)]]
            await until(lambda: list(operated.states(pool).values()), lambda found: found.count("Busy") >= 2)
            before = operated.uids(pool)
            node_plane.api_server.pause()
            try:
                await asyncio.sleep(STALL_SECONDS / 3)  # the stall is what is tested
                asked += [await operated.create(client, pool, steps) for steps in (SHORT, LONG, SHORT, LONG)]
                await asyncio.sleep(2 * STALL_SECONDS / 3)
            finally:
                node_plane.api_server.resume()
            assert operated.uids(pool).items() >= before.items()
            final = [await client.wait(one.name) for one in asked]
            assert {one.state for one in final} == {Generation.SUCCEEDED}
            assert [one.attempt_count for one in final] == [1] * len(final)
            operated.apply(pool, scaling={**SCALING, "maxReplicas": 1})
            await until(lambda: operated.states(pool), lambda found: len(found) <= 1)
            made = {name: uids for name, uids in names.uids.items() if name.startswith(pool)}
            assert len(made) == operated.status(pool)["nextOrdinal"] >= len(before)
            assert [len(uids) for uids in made.values()] == [1] * len(made), "no name is used twice"
            assert bool(ends) is restarts
            await operated.remove(pool)
