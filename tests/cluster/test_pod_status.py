"""What the process kubelet writes of a pod, without a cluster."""

from __future__ import annotations

import asyncio
import copy
import itertools
from pathlib import Path
from typing import Any

import pytest

from wan22_testing.cluster.api import Api
from wan22_testing.process_kubelet import pod_status
from wan22_testing.process_kubelet.images import Image, Images
from wan22_testing.process_kubelet.pod import Pod, Surroundings
from wan22_testing.process_kubelet.running import Stage


class LateApi(Api):
    """Takes every status; what it then has is heard of when a test says so."""

    def __init__(self, pod: dict[str, Any]) -> None:
        self.pod = pod
        self.events: list[dict[str, Any]] = []
        self.written = asyncio.Event()

    async def patch(self, path: str, change: Any, kind: str = "") -> dict[str, Any]:
        await asyncio.sleep(0)
        meta = {**self.pod["metadata"], "resourceVersion": str(int(self.pod["metadata"]["resourceVersion"]) + 1)}
        self.pod = copy.deepcopy({**self.pod, "metadata": meta, "status": change["status"]})
        self.events.append(self.pod)
        self.written.set()
        return self.pod

    @property
    def ready(self) -> bool:
        conditions = self.pod["status"].get("conditions", [])
        return {one["type"]: one["status"] for one in conditions}.get("Ready") == "True"


async def idle(stage: Stage) -> int:
    await stage.stopping.wait()
    return 0


async def online() -> None:
    """It always is."""


async def test_a_watch_that_is_late_has_no_status_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(pod_status, "now", lambda: f"tick {next(ticks)}")
    meta = {"name": "late", "namespace": "default", "uid": "uid-late", "resourceVersion": "1"}
    spec = {"nodeName": "node", "containers": [{"name": "main", "image": "wan22/idle"}]}
    api = LateApi({"metadata": meta, "spec": spec, "status": {"phase": "Pending"}})
    images = Images({"wan22/idle": Image((), hosted=idle)})
    pod = Pod(api.pod, "127.16.1.1", Surroundings(api, images, tmp_path, "127.16.0.1", 0.1, online))
    running = asyncio.create_task(pod.run())
    async with asyncio.timeout(30.0):
        while not api.ready:
            api.written.clear()
            await api.written.wait()
    seen, writes = [*api.events], len(api.events)
    for event in seen:
        pod.observe(event)
        for _ in range(10):
            await asyncio.sleep(0)
    assert len(api.events) == writes
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
