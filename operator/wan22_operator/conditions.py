"""What is the case with a pool, in words: a missing prerequisite is a condition, not a stack trace."""

from __future__ import annotations

from collections.abc import Sequence

from wan22_operator.condition import Condition, no, unknown, yes
from wan22_operator.observed import Observed
from wan22_operator.plan import Plan
from wan22_operator.record import READY, State
from wan22_operator.replacing import outdated
from wan22_operator.revision import is_current
from wan22_operator.versions import delay
from wan22_operator.workers import Seen


def conditions_of(observed: Observed, plan: Plan, gateway_error: str | None) -> list[Condition]:
    """All conditions of a WanPool; `Ready` sums them up."""
    resolved = _model_resolved(observed, plan)
    declared = _declared(observed, plan, gateway_error)
    healthy = _healthy(plan.workers)
    updated = _updated(observed, plan)
    scaling = _scaling(observed, plan)
    ready = _ready(observed, plan, [resolved, declared])
    return [ready, resolved, declared, scaling, updated, healthy]


def _model_resolved(observed: Observed, plan: Plan) -> Condition:
    if observed.model is not None:
        if plan.record.model_version != observed.model.name:
            why = delay(observed, plan.workers) or "it is taken now"
            text = f"{observed.spec.model} is {observed.model.name} now: {why}."
            return yes("ModelResolved", "NewVersionWaits", text)
        return yes("ModelResolved", "Resolved", f"{observed.spec.model} is {observed.model.name}.")
    error = observed.model_error or ""
    if plan.record.model_version and plan.record.model == observed.spec.model:
        text = f"{plan.record.model_version} stays: {error}"
        return yes("ModelResolved", "RegistryUnavailable", text)
    return no("ModelResolved", "ModelUnavailable", error)


def _declared(observed: Observed, plan: Plan, error: str | None) -> Condition:
    if plan.declared is None:
        return no("Declared", "ModelUnavailable", "The gateway is told of it once its model is known.")
    view = observed.view
    if view is not None and same_declaration(view.pool, plan.declared):
        return yes("Declared", "Declared", "The gateway takes generations for it.")
    if error is not None:
        return no("Declared", "GatewayUnavailable", error)
    return no("Declared", "Declaring", "The gateway is being told of it.")


def same_declaration(has: object, wanted: object) -> bool:
    """Whether two pools of the gateway are declared alike."""
    fields = ("variant", "model_version", "max_workers", "default_for_variant", "distilled")
    same = all(getattr(has, field) == getattr(wanted, field) for field in fields)
    lists = ("worker_targets", "earlier_versions")
    return same and all(list(getattr(has, field)) == list(getattr(wanted, field)) for field in lists)


def _scaling(observed: Observed, plan: Plan) -> Condition:
    if observed.spec.paused:
        return no("ScalingActive", "Paused", "spec.paused is true: nothing is created, updated or removed.")
    if plan.decision is None:
        return no("ScalingActive", "ModelUnavailable", "No worker is created before the model is known.")
    if plan.blocked:
        return no("ScalingActive", "Blocked", plan.blocked)
    if not observed.told:
        text = "The gateway's figures are missing, old or incomplete: no worker is removed."
        return unknown("ScalingActive", "Blind", text)
    if plan.awaited:
        return yes("ScalingActive", "FirstWorker", plan.awaited)
    return yes("ScalingActive", "External" if observed.spec.external else "Operator", plan.record.decision_reason)


def _updated(observed: Observed, plan: Plan) -> Condition:
    old = outdated(plan.workers, plan.record.revision)
    if not old:
        return yes("Updated", "Updated", "All workers are as the spec says.")
    text = f"{len(old)} of {len(plan.workers)} workers are of an earlier revision; update.trigger is "
    return no("Updated", observed.spec.trigger, f"{text}{observed.spec.trigger}.")


def _healthy(workers: Sequence[Seen]) -> Condition:
    for state, reason in (
        (State.BROKEN, "WorkerBroken"),
        (State.LOST, "WorkerLost"),
        (State.UNSCHEDULABLE, "Unschedulable"),
        (State.UNKNOWN, "WorkerSilent"),
    ):
        ill = [seen for seen in workers if seen.state is state]
        if ill:
            names = ", ".join(seen.name for seen in ill[:5])
            return no("Healthy", reason, f"{names}: {ill[0].record.reason}")
    return yes("Healthy", "Healthy", "Nothing is wrong with its workers.")


def _ready(observed: Observed, plan: Plan, needed: Sequence[Condition]) -> Condition:
    for condition in needed:
        if not condition.true:
            return no("Ready", condition.reason, condition.message)
    ready = sum(seen.state in READY for seen in plan.workers)
    wanted = plan.record.desired or 0
    if ready:
        return yes("Ready", "WorkersReady", f"{ready} of {max(wanted, ready)} workers are ready.")
    if not wanted:
        if observed.spec.maximum == 0:
            return no("Ready", "NotServed", "scaling.maxReplicas is 0: it takes no generation.")
        return yes("Ready", "Idle", "No worker is wanted now: the first generation waits for a load.")
    return no("Ready", *_why_not(plan))


def _why_not(plan: Plan) -> tuple[str, str]:
    if plan.blocked:
        return "Blocked", plan.blocked
    current = [seen for seen in plan.workers if is_current(seen.record.revision, plan.record.revision)]
    for state, reason in ((State.BROKEN, "WorkerBroken"), (State.UNSCHEDULABLE, "Unschedulable")):
        ill = [seen for seen in current if seen.state is state]
        if ill:
            return reason, f"{ill[0].name}: {ill[0].record.reason}"
    loading = [seen for seen in current if seen.state is State.LOADING]
    if loading:
        return "Loading", f"{len(loading)} workers load their model."
    return "Creating", "Workers are being created."
