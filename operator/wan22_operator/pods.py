"""The workers' pods, kept in memory for the rounds of all pools, and looked up exactly where that may mislead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from wan22_operator.cluster import Cluster, Object
from wan22_operator.names import COMPONENT, POOL, WORKER, PoolKey
from wan22_operator.record import WorkerRecord
from wan22_operator.reflector import Reflector
from wan22_operator.resources import POD

LABELS = f"{COMPONENT}={WORKER},{POOL}"
"""Selects them."""


class Pods:
    """Those of all pools of some namespaces, or of all, as a watch told of them; `news` hears whose have changed.

    `run` follows them. They are moments old, and never older than a watch may be silent.
    """

    def __init__(self, cluster: Cluster, namespaces: Sequence[str], news: Callable[[PoolKey], None]) -> None:
        self._cluster = cluster
        self._news = news
        self._of: dict[PoolKey, dict[str, Object]] = {}
        """By pool and by name."""
        self.reflectors = {
            namespace: Reflector(cluster, POD, namespace, LABELS, kept=kept, changed=self._changed)
            for namespace in namespaces or (None,)
        }

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            for reflector in self.reflectors.values():
                group.create_task(reflector.run())

    async def current(self, namespace: str) -> None:
        """Returns once those of a namespace are followed. Raises ApiFailure if that takes long."""
        await (self.reflectors.get(namespace) or self.reflectors[None]).current()

    async def of(self, key: PoolKey, owner: str, records: Iterable[WorkerRecord]) -> list[Object]:
        """A pool's own. Raises ApiFailure.

        Where the memory and the records differ, in who is there or by which uid, a pod is read exactly: so none is
        taken for gone or for there, and none is made again, because the memory is late. All else that it may be late
        with is met by preconditions.
        """
        await self.current(key.namespace)
        pods = {name: pod for name, pod in self._of.get(key, {}).items() if _owner(pod) == owner}
        recorded = {worker.name: worker.uid for worker in records}
        known = {name: pod["metadata"]["uid"] for name, pod in pods.items()}
        for name in sorted({name for name, _ in recorded.items() ^ known.items()}):
            exact = await self._cluster.find(POD, key.namespace, name)
            pods.pop(name, None)
            if exact is not None and _is_of(key, exact) and _owner(exact) == owner:
                pods[name] = kept(exact)
        return list(pods.values())

    async def all(self, namespace: str) -> list[Object]:
        """Those of all pools of a namespace. Raises ApiFailure."""
        await self.current(namespace)
        return [pod for key, pods in self._of.items() if key.namespace == namespace for pod in pods.values()]

    def _changed(self, before: Object | None, now: Object | None) -> None:
        if before is not None:
            self._forget(before)
        if now is not None:
            self._of.setdefault(PoolKey.of_part(now), {})[now["metadata"]["name"]] = now
        if before is None or now is None or _news(before) != _news(now):
            for key in {PoolKey.of_part(pod) for pod in (before, now) if pod is not None}:
                self._news(key)

    def _forget(self, pod: Object) -> None:
        key, name = PoolKey.of_part(pod), pod["metadata"]["name"]
        pods = self._of.get(key, {})
        if pods.get(name) is pod:  # another one may have come under its name
            del pods[name]
        if not pods:
            self._of.pop(key, None)


def kept(pod: Mapping[str, Any]) -> Object:
    """What is looked at of a pod, which is a fifth of it."""
    spec, status = pod["spec"], pod.get("status", {})
    containers = [_some(container, "args", "resources") for container in spec.get("containers", [])]
    statuses = [_some(one, "restartCount", "state", "lastState") for one in status.get("containerStatuses", [])]
    scheduled = [one for one in status.get("conditions", []) if one["type"] == "PodScheduled"]
    return {
        "metadata": {name: value for name, value in pod["metadata"].items() if name != "managedFields"},
        "spec": {**_some(spec, "nodeName", "affinity"), "containers": containers},
        "status": {
            **_some(status, "phase", "reason", "message", "podIP"),
            "conditions": scheduled,
            "containerStatuses": statuses,
        },
    }


def _some(of: Mapping[str, Any], *names: str) -> Object:
    return {name: of[name] for name in names if name in of}


def _news(pod: Object) -> Object:
    """All but its version: what nobody looks at changes that, too."""
    meta = {name: value for name, value in pod["metadata"].items() if name != "resourceVersion"}
    return {**pod, "metadata": meta}


def _is_of(key: PoolKey, pod: Object) -> bool:
    labels: Mapping[str, str] = pod["metadata"].get("labels", {})
    return {COMPONENT: WORKER, POOL: key.name}.items() <= labels.items()


def _owner(pod: Object) -> str | None:
    """Uid of the controller."""
    references = pod["metadata"].get("ownerReferences", [])
    return next((reference["uid"] for reference in references if reference.get("controller")), None)
