"""Watches that die silently, as behind a firewall that forgets them: they are opened anew, although nobody says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from wan22_operator.cluster import ANSWER_SECONDS
from wan22_operator.handlers import WATCH_CLIENT_SECONDS
from wan22_testing.cluster.control_plane import ControlPlane
from wan22_testing.cluster.programs import Programs
from wan22_testing.cutting_proxy import CuttingProxy

from .operated import LEASE, Operated, operated_on, until

pytestmark = [pytest.mark.long, pytest.mark.timeout(600), pytest.mark.usefixtures("kubectl")]
RESYNC_SECONDS = 600
"""Its timer is of no help here."""
LEASE_SECONDS = 120
QUIET_SECONDS = 25.0
"""A watch's client says nothing after its beginning; other connections are closed when they are idle for as long."""
WATCHES = 6
"""Of pools, models, services, service accounts, network policies and nodes; the one of pods is short."""


@asynccontextmanager
async def behind_a_proxy(
    control_plane: ControlPlane, programs: Programs, folder: Path, namespace: str
) -> AsyncIterator[tuple[CuttingProxy, Operated]]:
    """An operator that works, and what stands between it and the API server."""
    port = int(control_plane.server.rpartition(":")[2])
    async with CuttingProxy(port, []) as proxy, operated_on(control_plane, programs, folder, namespace) as operated:
        kubeconfig = folder / "through-the-proxy.kubeconfig"
        direct = json.loads(control_plane.kubeconfig_of_service_account(namespace, LEASE).read_text())
        direct["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
        kubeconfig.write_text(json.dumps(direct))
        operator = operated.operator(kubeconfig=kubeconfig, resync_seconds=RESYNC_SECONDS, lease_seconds=LEASE_SECONDS)
        operator.start()
        try:
            await operator.until()
            yield proxy, operated
            assert operator.running
            assert await asyncio.to_thread(operator.stop) == 0
        finally:
            if operator.running:
                operator.kill()


async def test_watches_that_die_silently_are_opened_anew(
    control_plane: ControlPlane, programs: Programs, tmp_path: Path
) -> None:
    async with behind_a_proxy(control_plane, programs, tmp_path, "silent") as (proxy, operated):
        operated.apply("before")
        await until(lambda: operated.condition("before", "Ready"), lambda found: found == "Idle")
        await asyncio.sleep(QUIET_SECONDS)  # until watches are known by their silence
        assert proxy.silence(QUIET_SECONDS - 1) >= WATCHES
        operated.apply("after")
        await until(
            lambda: operated.condition("after", "Ready"), lambda found: found == "Idle", 2.0 * WATCH_CLIENT_SECONDS
        )


async def test_a_pod_that_is_gone_while_every_connection_is_half_open_is_replaced(
    control_plane: ControlPlane, programs: Programs, tmp_path: Path
) -> None:
    async with behind_a_proxy(control_plane, programs, tmp_path, "half-open") as (proxy, operated):
        operated.apply("kept", scaling={"minReplicas": 1, "maxReplicas": 1})
        first = await until(lambda: operated.uids("kept"), lambda found: len(found) == 1)
        await until(lambda: operated.status("kept")["workers"], lambda workers: bool(workers and "uid" in workers[0]))
        assert proxy.silence(0.0) > WATCHES
        operated.kubectl("delete", "pod", *first, *operated.inside, "--grace-period=0", "--force")
        # the watch is overdue, then the list and the round may each take a half-open connection at first
        second = await until(lambda: operated.uids("kept"), lambda found: len(found) == 1, 5.0 * ANSWER_SECONDS)
        assert first == {"kept-0": first["kept-0"]}
        assert set(second) == {"kept-1"}
