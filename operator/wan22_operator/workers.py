"""What each worker is seen to do: from its record, its pod, its node and what the gateway says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wan22.v1 import inference_pb2, pool_pb2
from wan22_operator.builders.pod import version_of, worker_name
from wan22_operator.names import REVISION, PoolKey
from wan22_operator.nodes import Node
from wan22_operator.record import READY, State, WorkerRecord
from wan22_operator.times import seconds_of

FATAL_WAITS = frozenset(
    {
        *("CrashLoopBackOff", "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"),
        *("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
    }
)
"""What a container waits for that time alone does not bring."""
UNPROVEN = frozenset({State.CREATING, State.UNSCHEDULABLE, State.LOADING, State.BROKEN})
"""Of a worker that has not been ready."""
STATES = {
    inference_pb2.Worker.LOADING: State.LOADING,
    inference_pb2.Worker.IDLE: State.IDLE,
    inference_pb2.Worker.BUSY: State.BUSY,
    inference_pb2.Worker.DRAINING: State.DRAINING,
    inference_pb2.Worker.BROKEN: State.BROKEN,
}


@dataclass(frozen=True, slots=True)
class Seen:
    """One worker now. A worker without a pod is recorded and to be created."""

    record: WorkerRecord
    pod: Mapping[str, Any] | None = None
    known: pool_pb2.PoolWorker | None = None
    """What the gateway says of this very pod."""

    @property
    def name(self) -> str:
        """Of its pod."""
        return self.record.name

    @property
    def state(self) -> State:
        """What it does."""
        return self.record.state

    @property
    def deleted(self) -> bool:
        """Its pod has been deleted and ends."""
        return self.pod is not None and "deletionTimestamp" in self.pod["metadata"]

    @property
    def fenced(self) -> bool:
        """The gateway gives it nothing new."""
        return self.known is not None and self.known.HasField("drain_expire_time")

    @property
    def claimed(self) -> bool:
        """The gateway has given it a generation."""
        return self.known is not None and bool(self.known.generation or self.known.prepared)

    @property
    def address(self) -> str | None:
        """Its pod's."""
        return None if self.pod is None else self.pod.get("status", {}).get("podIP")

    @property
    def scheduled_time(self) -> float:
        """When its pod was given a node, or was made."""
        if self.pod is None:
            return self.record.since
        scheduled = _conditions(self.pod).get("PodScheduled", {})
        given = scheduled.get("status") == "True" and scheduled.get("lastTransitionTime")
        return seconds_of(given or self.pod["metadata"]["creationTimestamp"])


def see(
    key: PoolKey,
    records: Sequence[WorkerRecord],
    pods: Sequence[Mapping[str, Any]],
    nodes: Mapping[str, Node],
    known: Sequence[pool_pb2.PoolWorker],
    now: float,
    *,
    told: bool,
) -> list[Seen]:
    """All workers, by the order of their records; `told` says that the gateway's word is fresh.

    A record whose pod was there and is gone is dropped; a pod of the pool that no record has is taken in.
    """
    by_name = {pod["metadata"]["name"]: pod for pod in pods}
    by_worker = {worker.name: worker for worker in known}
    seen = []
    for record in records:
        pod = by_name.pop(record.name, None)
        if pod is None:
            if not record.uid:
                seen.append(Seen(record))
            continue
        if record.uid and pod["metadata"]["uid"] != record.uid:
            record = WorkerRecord(name=record.name, since=now)  # noqa: PLW2901  # another pod of that name
        seen.append(_one(key, record, pod, nodes, by_worker, now, told=told))
    for name in sorted(by_name):
        record = WorkerRecord(name=name, since=now)
        seen.append(_one(key, record, by_name[name], nodes, by_worker, now, told=told))
    return seen


def _one(
    key: PoolKey,
    record: WorkerRecord,
    pod: Mapping[str, Any],
    nodes: Mapping[str, Node],
    by_worker: Mapping[str, pool_pb2.PoolWorker],
    now: float,
    *,
    told: bool,
) -> Seen:
    worker = by_worker.get(worker_name(key, record.name))
    if worker is not None and worker.uid != pod["metadata"]["uid"]:
        worker = None
    state, reason = _state(record, pod, nodes, worker, told=told)
    now_seen = replace(
        record,
        uid=pod["metadata"]["uid"],
        node=pod["spec"].get("nodeName") or (record.node if record.claim else ""),
        revision=pod["metadata"].get("labels", {}).get(REVISION, ""),
        state=state,
        reason=reason,
        since=record.since if state is record.state else now,
        bytes_left=worker.bytes_left if worker is not None and state is State.LOADING else None,
        model_version=version_of(pod),
    )
    return Seen(now_seen, pod, worker)


def _state(
    record: WorkerRecord,
    pod: Mapping[str, Any],
    nodes: Mapping[str, Node],
    worker: pool_pb2.PoolWorker | None,
    *,
    told: bool,
) -> tuple[State, str]:
    node = pod["spec"].get("nodeName")
    gone = node is not None and (node not in nodes or not nodes[node].ready)
    if gone and not (worker is not None and worker.alive) and (told or record.state is State.LOST):
        return State.LOST, f"Node {node} is not ready, and the worker does not answer."
    if "deletionTimestamp" in pod["metadata"]:
        return State.DRAINING, "Its pod was deleted: it ends or gives up its generation."
    if (of_pod := _unstarted(pod)) is not None:
        return of_pod
    if worker is None or not worker.alive:
        if record.state in UNPROVEN and (crashes := _crashes(pod)):
            return State.BROKEN, crashes
        return _silent(record, worker, told=told)
    if worker.HasField("drain_expire_time") and worker.state != inference_pb2.Worker.BROKEN:
        return State.DRAINING, f"Ends {worker.generation}." if worker.generation else "It is fenced."
    if worker.generation or worker.prepared:
        return State.BUSY, ""
    return STATES.get(worker.state, State.UNKNOWN), worker.error


def _unstarted(pod: Mapping[str, Any]) -> tuple[State, str] | None:
    """What the pod itself says, where its process does not run."""
    status = pod.get("status", {})
    if status.get("phase") in {"Failed", "Succeeded"}:
        why = f"{status.get('reason') or status['phase']} {status.get('message', '')}".strip()
        return State.BROKEN, f"Its pod has ended: {why}"
    if not pod["spec"].get("nodeName"):
        scheduled = _conditions(pod).get("PodScheduled", {})
        if scheduled.get("reason") == "Unschedulable":
            return State.UNSCHEDULABLE, scheduled.get("message", "No node takes it.")
        return State.CREATING, ""
    waits = _fatal_wait(status)
    return None if waits is None else (State.BROKEN, waits)


def _silent(record: WorkerRecord, worker: pool_pb2.PoolWorker | None, *, told: bool) -> tuple[State, str]:
    if not told:
        return (State.UNKNOWN, "The gateway does not say.") if record.state in READY else (record.state, record.reason)
    if worker is None and record.state in UNPROVEN:
        return State.LOADING, "Its process has not answered yet."
    return State.UNKNOWN, "It has stopped answering the gateway."


def _fatal_wait(status: Mapping[str, Any]) -> str | None:
    for container in status.get("containerStatuses", []):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") in FATAL_WAITS:
            return f"{waiting['reason']}: {waiting.get('message', 'see the pod.')}"
    return None


def _crashes(pod: Mapping[str, Any]) -> str:
    """That its process has ended before, where it has: between two crashes it looks like one that starts."""
    for container in pod.get("status", {}).get("containerStatuses", []):
        if count := container.get("restartCount", 0):
            code = container.get("lastState", {}).get("terminated", {}).get("exitCode", "unknown")
            return f"its process has ended {count} time{'' if count == 1 else 's'}, last with code {code}."
    return ""


def _conditions(pod: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    return {condition["type"]: condition for condition in pod.get("status", {}).get("conditions", [])}
