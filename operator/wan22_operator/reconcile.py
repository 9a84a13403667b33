"""One round of one pool: observe, decide, record, act."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from wan22.errors import Wan22Error
from wan22_operator.budget import Budget, Claims
from wan22_operator.builders.children import children_of
from wan22_operator.builders.pod import Placement, pod_of
from wan22_operator.caches import NodeCache
from wan22_operator.children import keep
from wan22_operator.cluster import ApiFailure, Cluster
from wan22_operator.conditions import same_declaration
from wan22_operator.lateness import lateness
from wan22_operator.memory import Memory
from wan22_operator.metrics import Metrics
from wan22_operator.names import PoolKey
from wan22_operator.observed import Observed, Sources
from wan22_operator.plan import Plan, plan
from wan22_operator.record import Record, State, WorkerRecord
from wan22_operator.recorder import Recorder
from wan22_operator.replacing import patient
from wan22_operator.resources import POD, WAN_POOL
from wan22_operator.retire import retire
from wan22_operator.revision import revision
from wan22_operator.snapshot import demand_of
from wan22_operator.status import changed, manifest_of, status_of

log = logging.getLogger(__name__)
REFUSALS = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY})
"""Answers that name something wrong with the pod: a quota, Pod Security, a priority class that is not there."""
FETCH_SECONDS = 2.0
"""How soon a pool is looked at again whose workers wait to be created: for a node's fetch, or for the GPU budget."""
CHILDREN_SECONDS = 300.0
"""How often a pool's shared objects are compared without an event of theirs."""


class Reconciler:
    """Makes the cluster match the spec; safe to run any number of times, from any state."""

    def __init__(self, sources: Sources, recorder: Recorder, metrics: Metrics, budget: Budget) -> None:
        self._sources = sources
        self._cluster: Cluster = sources.cluster
        self._gateway = sources.gateway
        self._settings = sources.settings
        self._recorder = recorder
        self._metrics = metrics
        self._budget = budget

    async def reconcile(self, key: PoolKey, memory: Memory) -> bool:
        """One round; False where there is no such pool any more.

        Raises ApiFailure, also where somebody was faster: the next round begins anew.
        """
        claims = await self._budget.read()
        observed = await self._sources.observe(key)
        if observed is None:
            return False
        budget, shortage, awaited = await self._claimed(observed, memory, claims)
        planned = plan(observed, self._settings, memory, budget=budget, shortage=shortage)
        planned = replace(planned, awaited=planned.awaited or awaited)
        memory.note(planned.workers, observed.now)
        states = Counter(worker.state.value for worker in planned.record.workers)
        self._metrics.scaled(key, planned.record.desired, states)
        status = status_of(observed, planned, self._gateway.error)
        if changed(observed.status, status):
            await self._cluster.apply(
                WAN_POOL, key.namespace, manifest_of(observed, status), subresource="status", force=True
            )
            await self._tell(observed, planned, status)
        if await self._declare(observed, planned) and not observed.spec.paused:
            await self._act(observed, planned, memory)
        return True

    async def _claimed(self, observed: Observed, memory: Memory, claims: Claims) -> tuple[int | None, str, str]:
        """How many workers the GPU budget leaves to the pool, if there is one; what is in the way, and what is awaited.

        What cannot be made now is not claimed.
        """
        gpus = observed.spec.gpus
        if not self._budget.limited or not gpus:
            return None, "", ""
        wish = plan(observed, self._settings, memory)
        recorded = [seen for seen in wish.workers if seen.state is not State.LOST]
        held = sum(seen.pod is not None for seen in recorded)
        wanted = sum(worker.state is not State.LOST for worker in wish.record.workers)
        demand = None if observed.view is None else demand_of(observed.view)
        late = lateness(demand, len(recorded), gpus, observed.spec.objective_seconds, observed.now)
        claim = await self._budget.claim(
            claims,
            observed.spec.key,
            held=held * gpus,
            recorded=len(recorded) * gpus,
            wants=wanted * gpus,
            lateness=late,
            step=gpus,
        )
        few = f"The GPU budget of {self._settings.gpu_budget} leaves it {claim // gpus} of the {wanted} workers wanted."
        return claim // gpus, few if claim < wanted * gpus else wish.blocked, wish.awaited

    async def _declare(self, observed: Observed, planned: Plan) -> bool:
        """Tells the gateway of the pool; True when it knows it, or has known it and does not answer now."""
        if planned.declared is None:
            return False
        has, wanted = None if observed.view is None else observed.view.pool, planned.declared
        if has is not None and same_declaration(has, wanted) and has.obstacle == wanted.obstacle:
            return True
        try:
            await self._gateway.apply(planned.declared)
        except Wan22Error as error:
            log.warning("%s cannot be declared: %s", observed.spec.key, error.message)
            return any(worker.uid for worker in planned.record.workers)  # then it was declared before them
        return True

    async def _act(self, observed: Observed, planned: Plan, memory: Memory) -> None:
        spec = observed.spec
        if memory.children_due or observed.now - memory.children_time > CHILDREN_SECONDS:
            for sentence in await keep(self._cluster, children_of(spec, self._settings)):
                await self._record(observed, "Warning", "DriftRepaired", sentence)
            memory.children_due, memory.children_time = False, observed.now
        memory.next_round = None
        caches = {cache.node: cache for cache in observed.caches}
        due = []
        for worker in planned.record.workers:
            if worker.uid:
                continue
            if worker.reason and worker.claim:
                memory.next_round = FETCH_SECONDS
                await self._fetch(caches[worker.node], planned.record.version_for(worker))
            else:
                due.append(worker)
        granted = await self._confirmed(observed, planned, due)
        for worker in granted:
            await self._create(observed, planned, worker, memory)
        if len(granted) < len(due):
            memory.next_round = FETCH_SECONDS
        leaving = [seen for seen in planned.workers if seen.name in planned.record.victims]
        waiting = patient(spec, planned.workers, planned.record.victims, planned.record.revision)
        for name in await retire(spec.key, leaving, waiting, self._cluster, self._gateway):
            await self._record(observed, "Normal", "WorkerRemoved", f"{name} was removed.")

    async def _confirmed(
        self, observed: Observed, planned: Plan, due: Sequence[WorkerRecord]
    ) -> Sequence[WorkerRecord]:
        """Those of the due that may be created: meanwhile their GPUs may have been taken, or they were not wanted."""
        key, gpus, room = observed.spec.key, observed.spec.gpus, len(due)
        if due and self._budget.limited and gpus:
            held = sum(seen.pod is not None and seen.state is not State.LOST for seen in planned.workers)
            room = max(0, await self._budget.confirm(key) // gpus - held)
        manifest = await self._cluster.find(WAN_POOL, key.namespace, key.name) if due else None
        status = {} if manifest is None else manifest.get("status", {})
        awaited = {worker.name for worker in Record.from_status(status, observed.now).workers if not worker.uid}
        return [worker for worker in due if worker.name in awaited][:room]

    async def _create(self, observed: Observed, planned: Plan, worker: WorkerRecord, memory: Memory) -> None:
        spec, record = observed.spec, planned.record
        avoided = tuple(node.node for node in record.avoided if node.until > observed.now)
        version = record.version_for(worker)
        manifest = pod_of(
            spec,
            self._settings,
            name=worker.name,
            image=record.image,
            model_version=version,
            revision=revision(spec, record.image, version),
            placement=Placement(node=worker.node, claim=worker.claim) if worker.claim else Placement(avoided=avoided),
        )
        try:
            await self._cluster.create(POD, spec.key.namespace, manifest)
        except ApiFailure as failure:
            if failure.conflict:
                await self._meet(observed, worker.name, memory)
                return
            if failure.code in REFUSALS:
                memory.refused = failure.message
                await self._record(observed, "Warning", "CreateRefused", f"{worker.name}: {failure.message}")
                return
            raise
        memory.refused = ""
        await self._record(observed, "Normal", "WorkerCreated", f"{worker.name} was created.")

    async def _fetch(self, cache: NodeCache, version: str) -> None:
        if version in cache.versions:
            return
        try:
            await self._sources.caches.prefetch(cache, version)
        except Wan22Error as error:
            log.warning("Node %s is not asked for %s: %s", cache.node, version, error.message)

    async def _meet(self, observed: Observed, name: str, memory: Memory) -> None:
        """The pod is there already: ours, by another writer or an earlier life, or somebody else's."""
        pod = await self._cluster.find(POD, observed.spec.key.namespace, name)
        owners = [] if pod is None else pod["metadata"].get("ownerReferences", [])
        if pod is not None and not any(owner["uid"] == observed.spec.uid for owner in owners):
            memory.taken.add(name)
            note = f"Pod {name} is somebody else's: another name is used."
            await self._record(observed, "Warning", "NameTaken", note)

    async def _tell(self, observed: Observed, planned: Plan, status: dict[str, Any]) -> None:
        for kind, reason, note in planned.events:
            await self._record(observed, kind, reason, note)
        before = {one["type"]: one["reason"] for one in observed.status.get("conditions", [])}
        for condition in status["conditions"]:
            told = condition["type"] in {"Ready", "Healthy"} or condition["reason"] == "FirstWorker"
            if told and before.get(condition["type"]) != condition["reason"]:
                kind = "Normal" if condition["status"] == "True" else "Warning"
                await self._record(observed, kind, condition["reason"], condition["message"])

    async def _record(self, observed: Observed, kind: str, reason: str, note: str) -> None:
        spec = observed.spec
        await self._recorder.record(WAN_POOL, spec.key, spec.uid, kind=kind, reason=reason, note=note)
