"""All nodes of a test cluster, and the volumes of their pods."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from wan22_testing.cluster.api import Api, Object
from wan22_testing.cluster.reflector import Reflector
from wan22_testing.process_kubelet.addresses import Addresses
from wan22_testing.process_kubelet.claims import Claims
from wan22_testing.process_kubelet.images import Image, Images
from wan22_testing.process_kubelet.node import Node, NodeSpec


class Nodes:
    """Nodes by name, once `run` has made them.

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
        self.by_name: dict[str, Node] = {}
        self._kubeconfig = kubeconfig
        self._folder = folder
        self._specs = nodes
        self._images = Images(images)
        self._heartbeat_seconds = heartbeat_seconds
        self._backoff_seconds = backoff_seconds

    async def run(self, registered: asyncio.Event, stopped: asyncio.Event) -> None:
        """Keeps them going until it is `stopped`, which ends all that runs on them; says when they are `registered`."""
        addresses = Addresses()
        async with Api(self._kubeconfig) as api, Api(self._kubeconfig) as pods:
            for spec in self._specs:
                self.by_name[spec.name] = Node(
                    spec,
                    api=api,
                    pods=pods,  # a heartbeat does not wait for a thousand statuses
                    images=self._images,
                    folder=self._folder / spec.name,
                    addresses=addresses,
                    heartbeat_seconds=self._heartbeat_seconds,
                    backoff_seconds=self._backoff_seconds,
                )
            claims = Claims(api, self._folder / "claims")
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
                    for run in (*(f.run for f in follows), *(n.run for n in self.by_name.values()), claims.run)
                ]
                try:
                    for node in self.by_name.values():
                        await node.registered.wait()
                    registered.set()
                    await stopped.wait()
                finally:
                    for task in tasks:
                        task.cancel()
                    for node in self.by_name.values():
                        await node.kill()
                    addresses.close()

    def _see_pod(self, pod: Object, *, gone: bool = False) -> None:
        node = self.by_name.get(pod["spec"]["nodeName"])
        if node is not None:
            node.observe_pod(pod, gone=gone)

    def _see_node(self, node: Object) -> None:
        known = self.by_name.get(node["metadata"]["name"])
        if known is not None:
            self._group.create_task(known.observe_self(node))
