"""What a pod's status says of its containers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wan22_testing.cluster.api import Object
from wan22_testing.process_kubelet.container import Container, now

CONDITIONS = ("PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready")
"""Those that a kubelet writes; PodScheduled is the scheduler's."""


def status_of(
    pod: Object,
    *,
    address: str,
    host: str,
    started: str,
    first: Sequence[Container],
    containers: Sequence[Container],
    waiting: str = "",
) -> Object:
    """A pod's status, as a strategic merge patch of it. `first` are its init containers.

    `waiting` is why no container is started yet.
    """
    initialized = all(container.exit_code == 0 for container in first)
    begun = bool(containers) or bool(first)
    ready = bool(containers) and initialized and all(container.ready for container in containers)
    phase = _phase(pod, first, containers)
    holds = {
        "PodReadyToStartContainers": begun,
        "Initialized": begun and initialized,
        "ContainersReady": ready,
        "Ready": ready,
    }
    known = {condition["type"]: condition for condition in pod.get("status", {}).get("conditions", [])}
    status: Object = {
        "phase": phase,
        "hostIP": host,
        "hostIPs": [{"ip": host}],
        "startTime": started,
        "conditions": [
            _condition(name, holds[name], known.get(name), phase, initialized=initialized) for name in CONDITIONS
        ],
        "initContainerStatuses": [_container_status(container) for container in first],
        "containerStatuses": [_container_status(container) for container in containers]
        or [_not_started(spec, waiting) for spec in pod["spec"]["containers"]],
    }
    if address:
        # replaced, since a merge by address would keep the one from before its node was lost
        status |= {"podIP": address, "podIPs": [{"ip": address}, {"$patch": "replace"}]}
    return status


def _phase(pod: Object, first: Sequence[Container], containers: Sequence[Container]) -> str:
    if any(container.ended and container.exit_code for container in first):
        return "Failed"
    if not containers:
        return "Pending"
    if not all(container.ended for container in containers):
        started = any(c.restart_count or "waiting" not in c.state for c in containers)
        return "Running" if started else "Pending"
    failed = any(container.exit_code for container in containers)
    if pod["metadata"].get("deletionTimestamp") or pod["spec"].get("restartPolicy", "Always") != "Always":
        return "Failed" if failed else "Succeeded"
    return "Running"


def _condition(name: str, holds: bool, known: Object | None, phase: str, *, initialized: bool) -> Object:  # noqa: FBT001  # a condition's value
    value = "True" if holds else "False"
    condition: Object = {"type": name, "status": value, "reason": None}
    if not holds and name in {"Ready", "ContainersReady"}:
        condition["reason"] = {
            "Succeeded": "PodCompleted",
            "Failed": "PodFailed",
        }.get(phase, "ContainersNotReady" if initialized else "ContainersNotInitialized")
    changed = known is None or known["status"] != value
    condition["lastTransitionTime"] = now() if changed or known is None else known["lastTransitionTime"]
    return condition


def _container_status(container: Container) -> dict[str, Any]:
    return {
        "name": container.name,
        "image": container.image,
        "imageID": container.image,
        "ready": container.ready,
        "started": container.started,
        "restartCount": container.restart_count,
        "state": container.state,
        "lastState": container.last_state,
    }


def _not_started(spec: Object, waiting: str) -> dict[str, Any]:
    return {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": "",
        "ready": False,
        "started": False,
        "restartCount": 0,
        "state": {"waiting": {"reason": waiting or "PodInitializing"}},
        "lastState": {},
    }
