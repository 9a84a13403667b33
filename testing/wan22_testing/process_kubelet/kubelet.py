"""All nodes of a test cluster, in one thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from wan22_testing.cluster.api import Api, Object
from wan22_testing.cluster.reflector import Reflector
from wan22_testing.process_kubelet.addresses import Addresses
from wan22_testing.process_kubelet.claims import Claims
from wan22_testing.process_kubelet.images import Image, Images
from wan22_testing.process_kubelet.node import Node, NodeSpec

T = TypeVar("T")
COMMAND_SECONDS = 30.0


class ProcessKubelet:
    """The nodes of a control plane; use as a context manager. All processes end with it, however it ends.

    `heartbeat_seconds` is the time between two renewals of a node's lease, `backoff_seconds` the first pause before a
    container that ended is started again; a real kubelet has 10 s for both.
    """

    def __init__(
        self,
        kubeconfig: Path,
        folder: Path,
        *,
        nodes: Sequence[NodeSpec],
        images: Mapping[str, Image],
        heartbeat_seconds: float = 1.0,
        backoff_seconds: float = 0.5,
    ) -> None:
        self.folder = folder
        self._kubeconfig = kubeconfig
        self._specs = nodes
        self._images = Images(images)
        self._heartbeat_seconds = heartbeat_seconds
        self._backoff_seconds = backoff_seconds
        self._nodes: dict[str, Node] = {}
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="process-kubelet", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(COMMAND_SECONDS)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(COMMAND_SECONDS)
        self._loop.close()
        if self._failure is not None:
            raise self._failure

    def kill_node(self, name: str) -> None:
        """Turns a machine off: its processes are killed, and nothing is heard of it until `restore_node`."""
        self._do(self._nodes[name].kill())

    def cut_off_node(self, name: str) -> None:
        """Takes a machine's network away: its processes go on, and nothing is heard of it until `restore_node`."""
        self._loop.call_soon_threadsafe(self._nodes[name].cut_off)

    def restore_node(self, name: str) -> None:
        """Lets a machine come back."""
        self._do(self._nodes[name].restore())

    def pid(self, namespace: str, pod: str) -> int | None:
        """Process id of a pod's first container, while it runs."""
        return self._do(self._pid(namespace, pod))

    async def _pid(self, namespace: str, pod: str) -> int | None:
        for node in self._nodes.values():
            for each in node.pods.values():
                meta = each.object["metadata"]
                if (meta["namespace"], meta["name"]) == (namespace, pod) and each.containers:
                    return each.containers[0].pid
        return None

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(COMMAND_SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001  # told by __enter__, in its thread
            self._failure = error
        finally:
            self._started.set()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())

    async def _serve(self) -> None:
        addresses = Addresses()
        async with Api(self._kubeconfig) as api:
            for spec in self._specs:
                self._nodes[spec.name] = Node(
                    spec,
                    api=api,
                    images=self._images,
                    folder=self.folder / spec.name,
                    addresses=addresses,
                    heartbeat_seconds=self._heartbeat_seconds,
                    backoff_seconds=self._backoff_seconds,
                )
            claims = Claims(api, self.folder / "claims")
            follows = [
                Reflector(
                    api,
                    "/api/v1/pods",
                    seen=self._see_pod,
                    gone=lambda pod: self._see_pod(pod, gone=True),
                    field_selector="spec.nodeName!=",
                ),
                Reflector(api, "/api/v1/nodes", seen=self._see_node),
            ]
            async with asyncio.TaskGroup() as group:
                self._group = group
                tasks = [
                    group.create_task(run())
                    for run in (*(f.run for f in follows), *(n.run for n in self._nodes.values()), claims.run)
                ]
                try:
                    for node in self._nodes.values():
                        await node.registered.wait()
                    self._started.set()
                    await self._stopped.wait()
                finally:
                    for task in tasks:
                        task.cancel()
                    for node in self._nodes.values():
                        await node.kill()
                    addresses.close()

    def _see_pod(self, pod: Object, *, gone: bool = False) -> None:
        node = self._nodes.get(pod["spec"]["nodeName"])
        if node is not None:
            node.observe_pod(pod, gone=gone)

    def _see_node(self, node: Object) -> None:
        known = self._nodes.get(node["metadata"]["name"])
        if known is not None:
            self._group.create_task(known.observe_self(node))
