"""A WanPool's status: what is seen, what was decided and what is the case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wan22.v1 import pool_pb2
from wan22_operator.condition import to_status
from wan22_operator.conditions import conditions_of
from wan22_operator.observed import Observed
from wan22_operator.plan import Plan
from wan22_operator.record import READY, State
from wan22_operator.resources import WAN_POOL
from wan22_operator.times import text_of


def status_of(observed: Observed, plan: Plan, gateway_error: str | None) -> dict[str, Any]:
    """All fields; each is in the CRD."""
    before = observed.status.get("conditions", [])
    conditions = conditions_of(observed, plan, gateway_error)
    status = {
        "observedGeneration": observed.spec.generation,
        "conditions": to_status(conditions, before, observed.spec.generation, observed.now),
        "replicas": sum(worker.state is not State.LOST for worker in plan.record.workers),
        "readyReplicas": sum(worker.state in READY for worker in plan.record.workers),
        "selector": observed.spec.key.selector,
        **plan.record.to_status(),
    }
    if observed.view is not None:
        status["demand"] = _demand(observed.view.pool.demand)
    return status


def _demand(demand: pool_pb2.Demand) -> dict[str, Any]:
    figures = {
        "asOfTime": text_of(demand.as_of_time.ToMicroseconds() / 1e6),
        "storeEpoch": demand.store_epoch,
        "queued": sum(bucket.count for bucket in demand.queued),
        "queuedSeconds": round(sum(bucket.predicted_seconds for bucket in demand.queued), 1),
        "running": len(demand.running),
    }
    if demand.queued:
        oldest = min(bucket.oldest_create_time.ToMicroseconds() for bucket in demand.queued)
        figures["oldestWaitSeconds"] = round((demand.as_of_time.ToMicroseconds() - oldest) / 1e6, 1)
    return figures


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a status says anything new: times of figures that stay the same are not news."""
    return _news(before) != _news(after)


def _news(status: Mapping[str, Any]) -> dict[str, Any]:
    demand = {name: value for name, value in status.get("demand", {}).items() if name not in _CLOCKS}
    needs = [step["replicas"] for step in status.get("needs", [])]
    # an empty list and none are the same
    return {
        name: value for name, value in {**status, "demand": demand, "needs": needs}.items() if value not in ([], {})
    }


_CLOCKS = ("asOfTime", "oldestWaitSeconds")


def manifest_of(observed: Observed, status: Mapping[str, Any]) -> dict[str, Any]:
    """To be applied: it is refused where the resource has changed since it was read."""
    key = observed.spec.key
    return {
        "apiVersion": WAN_POOL.api_version,
        "kind": WAN_POOL.kind,
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "resourceVersion": observed.spec.resource_version,
        },
        "status": dict(status),
    }
