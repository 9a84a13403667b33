"""Observations of a pool, for tests of what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from wan22.v1 import inference_pb2, pool_pb2
from wan22_operator.gateway import PoolView
from wan22_operator.memory import Memory
from wan22_operator.models import Resolved
from wan22_operator.names import PoolKey
from wan22_operator.nodes import Node
from wan22_operator.observed import Observed
from wan22_operator.plan import Plan, plan
from wan22_operator.record import Record
from wan22_operator.settings import OperatorSettings
from wan22_operator.spec import PoolSpec
from wan22_operator.status import status_of
from wan22_operator.times import text_of

NOW = 1_800_000_000.0
KEY = PoolKey("videos", "t2v")
VERSION = f"models/wan2.2-t2v-a14b/versions/sha256:{'1' * 64}"
OTHER_VERSION = f"models/wan2.2-t2v-a14b/versions/sha256:{'2' * 64}"
MODEL = Resolved(VERSION, "t2v-a14b", 70 << 30)
SETTINGS = OperatorSettings(worker_image="worker:1")
States = inference_pb2.Worker


def manifest(**spec: Any) -> dict[str, Any]:
    meta = {"name": KEY.name, "namespace": KEY.namespace, "uid": "pool-uid", "generation": 3, "resourceVersion": "7"}
    return {"metadata": meta, "spec": {"model": "wan2.2-t2v-a14b", "scaling": {"maxReplicas": 4}, **spec}}


def pool_spec(**spec: Any) -> PoolSpec:
    return PoolSpec.parse(manifest(**spec))


def pod(name: str, *, node: str | None = "n1", revision: str = "", uid: str | None = None, **status: Any) -> Any:
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": text_of(NOW - 100)}
    if node is None:
        scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes fit"}
    return {
        "metadata": {
            "name": name,
            "uid": uid or f"uid-{name}",
            "resourceVersion": "5",
            "creationTimestamp": text_of(NOW - 100),
            "labels": {"wan22.dev/revision": revision},
        },
        "spec": {} if node is None else {"nodeName": node},
        "status": {"phase": "Running", "conditions": [scheduled], **status},
    }


def known(name: str, state: Any = States.IDLE, *, fenced: bool = False, **fields: Any) -> pool_pb2.PoolWorker:
    given = {"uid": f"uid-{name}", "alive": True, **fields}
    worker = pool_pb2.PoolWorker(name=f"workers/{KEY.namespace}.{name}", state=state, pool=KEY.pool, **given)
    if fenced:
        worker.drain_expire_time.CopyFrom(stamp(NOW + 100))
    return worker


def stamp(seconds: float) -> Timestamp:
    made = Timestamp()
    made.FromMicroseconds(round(seconds * 1e6))
    return made


def demand(queued: int = 0, seconds: float = 60.0, **fields: Any) -> pool_pb2.Demand:
    buckets = []
    if queued:
        oldest = stamp(NOW - 5)
        buckets = [pool_pb2.DemandBucket(count=queued, predicted_seconds=queued * seconds, oldest_create_time=oldest)]
    return pool_pb2.Demand(queued=buckets, as_of_time=stamp(NOW), complete=True, store_epoch="e1", **fields)


def view(workers: Sequence[pool_pb2.PoolWorker] = (), asked: pool_pb2.Demand | None = None) -> PoolView:
    told = pool_pb2.Pool(
        name=KEY.pool,
        variant=MODEL.variant,
        model_version=VERSION,
        max_workers=4,
        worker_targets=["t2v-workers.videos.svc.cluster.local:50061"],
        workers=workers,
        demand=asked or demand(),
    )
    return PoolView(told, NOW)


def node(name: str = "n1", *, ready: bool = True) -> Node:
    return Node(name, ready, schedulable=True, labels={}, allocatable={})


def observed(
    *,
    spec: PoolSpec | None = None,
    record: Record | None = None,
    pods: Sequence[Any] = (),
    nodes: Sequence[Node] = (node(),),
    seen: PoolView | None = None,
    told: bool = True,
    model: Resolved | None = MODEL,
    error: str | None = None,
    now: float = NOW,
    status: Any = None,
) -> Observed:
    return Observed(
        now=now,
        spec=spec or pool_spec(),
        status=status or {},
        record=record or Record(),
        pods=pods,
        nodes={one.name: one for one in nodes},
        view=seen,
        told=told and seen is not None,
        model=model,
        model_error=error,
    )


def planned(seen: Observed, memory: Memory | None = None) -> Plan:
    return plan(seen, SETTINGS, memory or Memory())


def reasons(seen: Observed, made: Plan, gateway_error: str | None = None) -> dict[str, tuple[str, str, str]]:
    conditions = status_of(seen, made, gateway_error)["conditions"]
    return {one["type"]: (one["status"], one["reason"], one["message"]) for one in conditions}
