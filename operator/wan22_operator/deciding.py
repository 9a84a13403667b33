"""How many workers there should be, and who leaves: by the operator's own decision, or by an external scaler's."""

from __future__ import annotations

from dataclasses import replace

from wan22_operator.observed import Observed
from wan22_operator.record import Record
from wan22_operator.scaling.decision import Decision, decide, load_seconds
from wan22_operator.scaling.history import History
from wan22_operator.scaling.snapshot import Snapshot
from wan22_operator.scaling.tuning import Tuning, tuning_for
from wan22_operator.spec import PoolSpec


def decision_of(observed: Observed, snapshot: Snapshot, record: Record) -> Decision:
    """For one pool now. Whoever decides: nobody is removed on figures that are not fresh."""
    spec = observed.spec
    decision = (
        _external(observed, snapshot) if spec.external else decide(snapshot, record.history, _tuning(spec, record))
    )
    if decision.remove and not observed.told:  # whatever decided it: nobody knows what these workers do
        kept = decision.workers + len(decision.remove)
        text = f"Stays at {kept} workers: the gateway's figures are not fresh, so none is removed."
        return replace(decision, workers=kept, remove=(), reason=text)
    return decision


def _tuning(spec: PoolSpec, record: Record) -> Tuning | None:
    """The one found for such loads, with the hold of the spec where it has one."""
    if spec.idle_hold_seconds is None:
        return None
    loads = max(load_seconds([load.seconds for load in record.loads]), 1.0)
    return replace(tuning_for(loads, spec.objective_seconds), hold_loads=spec.idle_hold_seconds / loads)


def _external(observed: Observed, snapshot: Snapshot) -> Decision:
    """As many workers as `spec.replicas` says; the longest idle and the newest that load leave first."""
    spec = observed.spec
    wanted = spec.external_replicas
    if snapshot.limits.budget is not None:
        wanted = min(wanted, snapshot.limits.budget)
    leaving = {worker.name for worker in snapshot.workers if worker.state.value == "leaving"}
    staying = [worker for worker in snapshot.workers if worker.name not in leaving]
    surplus = len(staying) - wanted
    order = {"idle": 0, "loading": 1, "busy": 2}
    removable = [worker for worker in staying if worker.state.value in order]
    removable.sort(key=lambda w: (order[w.state.value], -w.since if w.state.value == "loading" else w.since))
    remove = tuple(worker.name for worker in removable[: max(0, surplus)])
    start = 0 if snapshot.unschedulable else max(0, min(-surplus, spec.maximum - len(snapshot.workers)))
    change = f"{len(staying)} -> {wanted} workers" if surplus else f"Stays at {wanted} workers"
    why = f"{change}: spec.replicas asks for {spec.replicas if spec.replicas is not None else 'the minimum'}."
    return Decision(workers=wanted, start=start, remove=remove, reason=why, history=History())
