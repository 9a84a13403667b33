"""What a WanPool's status remembers: decisions before they are acted on, and what decisions stand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from wan22_operator.scaling.history import History
from wan22_operator.times import seconds_of, text_of

MAX_LOADS = 20


class State(StrEnum):
    """What a worker is seen to do, as status says it."""

    CREATING = "Creating"
    UNSCHEDULABLE = "Unschedulable"
    LOADING = "Loading"
    IDLE = "Idle"
    BUSY = "Busy"
    DRAINING = "Draining"
    LOST = "Lost"
    BROKEN = "Broken"
    UNKNOWN = "Unknown"


_STATES = {state.value: state for state in State}
READY = frozenset({State.IDLE, State.BUSY})


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerRecord:
    """One worker as status has it. Without a uid its pod has not been seen yet: it is to be created."""

    name: str
    uid: str = ""
    node: str = ""
    revision: str = ""
    state: State = State.CREATING
    reason: str = ""
    since: float = 0.0
    bytes_left: int | None = None
    claim: str = ""
    """The node cache's claim that it was given."""
    model_version: str = ""
    """That it holds; of one without a pod that it is to hold, where that is not the pool's."""

    def to_status(self) -> dict[str, Any]:
        """As JSON."""
        said: dict[str, Any] = {"name": self.name, "state": self.state.value, "since": text_of(self.since)}
        optional = {
            "uid": self.uid,
            "node": self.node,
            "revision": self.revision,
            "reason": self.reason,
            "claim": self.claim,
            "modelVersion": self.model_version,
        }
        said |= {name: value for name, value in optional.items() if value}
        return said if self.bytes_left is None else {**said, "bytesLeft": self.bytes_left}

    @staticmethod
    def from_status(said: Mapping[str, Any]) -> WorkerRecord:
        """What `to_status` gave; a state of a newer operator reads as Unknown."""
        return WorkerRecord(
            name=said["name"],
            uid=said.get("uid", ""),
            node=said.get("node", ""),
            revision=said.get("revision", ""),
            state=_STATES.get(said.get("state", ""), State.UNKNOWN),
            reason=said.get("reason", ""),
            since=seconds_of(said["since"]) if "since" in said else 0.0,
            bytes_left=said.get("bytesLeft"),
            claim=said.get("claim", ""),
            model_version=said.get("modelVersion", ""),
        )


@dataclass(frozen=True, slots=True)
class Load:
    """One load that succeeded."""

    time: float
    seconds: float
    node: str = ""
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Avoided:
    """A node where no worker is created for a while."""

    node: str
    until: float
    failures: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """All that status remembers."""

    model: str = ""
    """The spec.model that `model_version` is of."""
    model_version: str = ""
    earlier_version: str = ""
    """The model version before, while workers or generations of it are left."""
    variant: str = ""
    image: str = ""
    default_image: str = ""
    """The operator's setting when the pool was first seen."""
    revision: str = ""
    proven: str = ""
    """The last revision of which a worker was ready."""
    next_ordinal: int = 0
    workers: tuple[WorkerRecord, ...] = ()
    victims: tuple[str, ...] = ()
    desired: int | None = None
    decision_time: float = 0.0
    decision_reason: str = ""
    history: History = field(default_factory=History)
    loads: tuple[Load, ...] = ()
    avoided: tuple[Avoided, ...] = ()

    def version_for(self, worker: WorkerRecord) -> str:
        """The model version that a worker without a pod is to hold."""
        owed = worker.model_version and worker.model_version == self.earlier_version
        return self.earlier_version if owed else self.model_version

    def with_load(self, load: Load) -> Record:
        """With one more, and the oldest forgotten."""
        return replace(self, loads=(*self.loads, load)[-MAX_LOADS:])

    @staticmethod
    def from_status(status: Mapping[str, Any], now: float) -> Record:
        """What `to_status` gave. The newest need counts as one of now: it was not written again while it stayed."""
        decision = status.get("decision", {})
        steps = [(seconds_of(step["time"]), int(step["replicas"])) for step in status.get("needs", [])]
        if steps:
            steps[-1] = (max(steps[-1][0], now), steps[-1][1])
        removal, loads = status.get("lastRemoval"), status.get("loads", [])
        avoided = status.get("avoidedNodes", [])
        return Record(
            model=status.get("model", ""),
            model_version=status.get("modelVersion", ""),
            earlier_version=status.get("earlierModelVersion", ""),
            variant=status.get("variant", ""),
            image=status.get("image", ""),
            default_image=status.get("defaultImage", ""),
            revision=status.get("revision", ""),
            proven=status.get("provenRevision", ""),
            next_ordinal=status.get("nextOrdinal", 0),
            workers=tuple(WorkerRecord.from_status(worker) for worker in status.get("workers", [])),
            victims=tuple(decision.get("victims", [])),
            desired=status.get("desiredReplicas"),
            decision_time=seconds_of(decision["time"]) if "time" in decision else 0.0,
            decision_reason=decision.get("reason", ""),
            history=History(tuple(steps), (seconds_of(removal["time"]), int(removal["replicas"])) if removal else None),
            loads=tuple(
                Load(seconds_of(load["time"]), load["seconds"], load.get("node", ""), load.get("cached", False))
                for load in loads
            ),
            avoided=tuple(
                Avoided(node["name"], seconds_of(node["until"]), node.get("failures", 1), node.get("reason", ""))
                for node in avoided
            ),
        )

    def to_status(self) -> dict[str, Any]:
        """As JSON."""
        texts = {
            "model": self.model,
            "modelVersion": self.model_version,
            "earlierModelVersion": self.earlier_version,
            "variant": self.variant,
            "image": self.image,
            "defaultImage": self.default_image,
            "revision": self.revision,
            "provenRevision": self.proven,
        }
        said: dict[str, Any] = {name: value for name, value in texts.items() if value}
        said["nextOrdinal"] = self.next_ordinal
        said["workers"] = [worker.to_status() for worker in self.workers]
        if self.desired is not None:
            said["desiredReplicas"] = self.desired
            said["decision"] = {
                "time": text_of(self.decision_time),
                "replicas": self.desired,
                "reason": self.decision_reason,
                "victims": list(self.victims),
            }
        if self.history.let_go is not None:
            time, stayed = self.history.let_go
            said["lastRemoval"] = {"time": text_of(time), "replicas": stayed}
        said["needs"] = [{"time": text_of(time), "replicas": count} for time, count in self.history.needs]
        said["loads"] = [
            {"time": text_of(load.time), "seconds": round(load.seconds, 1), "cached": load.cached}
            | ({"node": load.node} if load.node else {})
            for load in self.loads
        ]
        said["avoidedNodes"] = [
            {"name": node.node, "until": text_of(node.until), "failures": node.failures, "reason": node.reason}
            for node in self.avoided
        ]
        return said
