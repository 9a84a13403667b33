"""Watches that die silently, as behind a firewall that forgets them: they are opened anew, although nobody says so."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from wan22_operator.handlers import WATCH_CLIENT_SECONDS
from wan22_testing.cluster.control_plane import ControlPlane
from wan22_testing.cluster.programs import Programs
from wan22_testing.cutting_proxy import CuttingProxy

from .operated import LEASE, operated_on, until

RESYNC_SECONDS = 600
"""Its timer is of no help here."""
QUIET_SECONDS = 25.0
"""A watch's client says nothing after its beginning; other connections are closed when they are idle for as long."""
WATCHES = 7
"""Of pools, models, pods, services, service accounts, network policies and nodes."""


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("kubectl")
async def test_watches_that_die_silently_are_opened_anew(
    control_plane: ControlPlane, programs: Programs, tmp_path: Path
) -> None:
    port = int(control_plane.server.rpartition(":")[2])
    async with CuttingProxy(port, []) as proxy, operated_on(control_plane, programs, tmp_path, "silent") as operated:
        kubeconfig = tmp_path / "through-the-proxy.kubeconfig"
        direct = json.loads(control_plane.kubeconfig_of_service_account("silent", LEASE).read_text())
        direct["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
        kubeconfig.write_text(json.dumps(direct))
        operator = operated.operator(kubeconfig=kubeconfig, resync_seconds=RESYNC_SECONDS)
        operator.start()
        try:
            await operator.until()
            operated.apply("before")
            await until(lambda: operated.condition("before", "Ready"), lambda found: found == "Idle")
            await asyncio.sleep(QUIET_SECONDS)  # until watches are known by their silence
            assert proxy.silence(QUIET_SECONDS - 1) >= WATCHES
            operated.apply("after")
            await until(
                lambda: operated.condition("after", "Ready"), lambda found: found == "Idle", 2.0 * WATCH_CLIENT_SECONDS
            )
            assert operator.running
            assert await asyncio.to_thread(operator.stop) == 0
        finally:
            if operator.running:
                operator.kill()
