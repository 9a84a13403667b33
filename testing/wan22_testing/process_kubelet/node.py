"""One node: its object, its heartbeat, its pods; and what may happen to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

from wan22_testing.cluster.api import MERGE, STRATEGIC, Api, ApiError, Object
from wan22_testing.process_kubelet.addresses import Addresses
from wan22_testing.process_kubelet.container import now
from wan22_testing.process_kubelet.images import Images
from wan22_testing.process_kubelet.pod import Pod, Surroundings

log = logging.getLogger(__name__)
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
RETRY_SECONDS = 0.5
LEASE_HEARTBEATS = 4
"""A lease lasts as many heartbeats, as a kubelet's does."""


@dataclass(frozen=True)
class NodeSpec:
    """What a node is."""

    name: str
    gpus: int = 1
    cpus: int = 64
    memory: str = "512Gi"
    pods: int = 250
    labels: Mapping[str, str] = field(default_factory=dict)


class Node:
    """A node that can be lost and come back; `run` keeps it going."""

    def __init__(
        self,
        spec: NodeSpec,
        *,
        api: Api,
        pods: Api,
        images: Images,
        folder: Path,
        addresses: Addresses,
        heartbeat_seconds: float,
        backoff_seconds: float,
    ) -> None:
        self.spec = spec
        self.pods: dict[str, Pod] = {}  # by uid
        self.registered = asyncio.Event()
        self._api = api
        self._addresses = addresses
        self._heartbeat_seconds = heartbeat_seconds
        self._online = asyncio.Event()
        self._online.set()
        self._bound: dict[str, Object] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._address = addresses.take()
        folder.mkdir(parents=True, exist_ok=True)
        self._around = Surroundings(pods, images, folder, self._address, backoff_seconds, self._online.wait)

    async def run(self) -> None:
        """Registers it and beats for ever, while it is online."""
        while True:
            await self._online.wait()
            try:
                if not self.registered.is_set():
                    await self._register()
                    self.registered.set()
                await self._beat()
            except ApiError as error:
                log.info("node %s: %s", self.spec.name, error)
                await asyncio.sleep(min(RETRY_SECONDS, self._heartbeat_seconds))
            else:
                await asyncio.sleep(self._heartbeat_seconds)

    def observe_pod(self, pod: Object, *, gone: bool = False) -> None:
        """Takes a newer state of a pod that is bound to this node."""
        uid = pod["metadata"]["uid"]
        if gone:
            self._bound.pop(uid, None)
        else:
            self._bound[uid] = pod
        if not self._online.is_set():
            return  # it does not hear of it
        running = self.pods.get(uid)
        if running is not None:
            running.observe(pod, gone=gone)
        elif not gone:
            self._start(pod)

    async def observe_self(self, node: Object) -> None:
        """Says that it is ready where its object says otherwise, as after a time of silence."""
        conditions = {each["type"]: each["status"] for each in node.get("status", {}).get("conditions", [])}
        if self._online.is_set() and conditions.get("Ready") not in {"True", None}:
            with suppress(ApiError):  # its object changes again
                await self._write_status()

    async def kill(self) -> None:
        """The machine is off: its processes are killed, and nothing is heard of it."""
        self._online.clear()
        for pod in self.pods.values():
            pod.kill()
        await self._cancel()

    def cut_off(self) -> None:
        """Its network is gone: its processes go on, and nothing is heard of it."""
        self._online.clear()

    async def restore(self) -> None:
        """It comes back, from either: it runs what is bound to it now, and ends what is not."""
        self._online.set()
        for uid in self.pods.keys() - self._bound.keys():
            self.pods[uid].observe(self.pods[uid].object, gone=True)
        for pod in list(self._bound.values()):
            self.observe_pod(pod)
        with suppress(ApiError):
            await self._write_status()

    def _start(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        self.pods[uid] = Pod(pod, self._addresses.take(), self._around)
        self._tasks[uid] = asyncio.create_task(self._follow(uid, self.pods[uid]))

    async def _follow(self, uid: str, pod: Pod) -> None:
        try:
            await pod.run()
        except Exception:
            log.exception("node %s: pod %s ended by a fault of the kubelet", self.spec.name, pod.object["metadata"])
            raise
        finally:
            self._addresses.give_back(pod.address)
            if self.pods.get(uid) is pod:
                del self.pods[uid], self._tasks[uid]

    async def _cancel(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _register(self) -> None:
        name = self.spec.name
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        metadata = {"name": name, "labels": {**labels, **self.spec.labels}}
        try:
            node = await self._api.create("/api/v1/nodes", {"metadata": metadata})
        except ApiError as error:
            if error.code != HTTPStatus.CONFLICT:
                raise
            node = await self._api.get(f"/api/v1/nodes/{name}")
        await self._write_status()
        owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]}
        spec = {
            "holderIdentity": name,
            "leaseDurationSeconds": max(1, round(LEASE_HEARTBEATS * self._heartbeat_seconds)),
        }
        lease = {"metadata": {"name": name, "ownerReferences": [owner]}, "spec": {**spec, "renewTime": _micro_time()}}
        try:
            await self._api.create(LEASES, lease)
        except ApiError as error:
            if error.code != HTTPStatus.CONFLICT:
                raise

    async def _beat(self) -> None:
        await self._api.patch(f"{LEASES}/{self.spec.name}", {"spec": {"renewTime": _micro_time()}}, MERGE)

    async def _write_status(self) -> None:
        room = {
            "cpu": str(self.spec.cpus),
            "memory": self.spec.memory,
            "pods": str(self.spec.pods),
            "ephemeral-storage": "1Ti",
            "nvidia.com/gpu": str(self.spec.gpus),
        }
        time = now()
        conditions = [
            {"type": kind, "status": value, "reason": reason, "lastHeartbeatTime": time, "lastTransitionTime": time}
            for kind, value, reason in (
                ("Ready", "True", "KubeletReady"),
                ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                ("PIDPressure", "False", "KubeletHasSufficientPID"),
            )
        ]
        addresses = [{"type": "InternalIP", "address": self._address}, {"type": "Hostname", "address": self.spec.name}]
        status = {"capacity": room, "allocatable": room, "conditions": conditions, "addresses": addresses}
        await self._api.patch(f"/api/v1/nodes/{self.spec.name}/status", {"status": status}, STRATEGIC)


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
