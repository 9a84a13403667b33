"""What is to be done for one pool: a pure function of what was observed and remembered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from wan22.obstacle import LONGEST_OBSTACLE
from wan22.v1 import pool_pb2
from wan22_operator import versions
from wan22_operator.avoiding import avoiding, loads_left, obstacle_of
from wan22_operator.builders.pod import GPU
from wan22_operator.caches import NodeCache
from wan22_operator.deciding import decision_of
from wan22_operator.memory import Memory
from wan22_operator.names import WORKER_PORT, ordinal_of
from wan22_operator.observed import Observed
from wan22_operator.placing import fetching, places, uses_caches
from wan22_operator.record import READY, Load, Record, State, WorkerRecord
from wan22_operator.replacing import outdated, patient, replaced, surplus
from wan22_operator.revision import revision
from wan22_operator.scaling.decision import Decision
from wan22_operator.settings import OperatorSettings
from wan22_operator.snapshot import snapshot_of
from wan22_operator.spec import PoolSpec
from wan22_operator.trial import first_of, proven, sentence
from wan22_operator.workers import Seen, see


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What status is to say, and what then is to be done."""

    record: Record
    workers: tuple[Seen, ...]
    """As seen, without those that are to be created."""
    declared: pool_pb2.Pool | None
    """What the gateway is to have; None while that is not known."""
    decision: Decision | None
    """None where nothing may be decided: no model, or paused."""
    blocked: str = ""
    """Why no worker is created, where some are wanted."""
    awaited: str = ""
    """That the others wait for the first worker of a revision, where they do."""
    events: tuple[tuple[str, str, str], ...] = ()
    """Type, reason and message of each."""


def plan(
    observed: Observed,
    settings: OperatorSettings,
    memory: Memory,
    *,
    budget: int | None = None,
    shortage: str = "",
) -> Plan:
    """Decides; `budget` is how many workers the GPU budget leaves, and `shortage` says that these are too few.

    The memory is read only.
    """
    spec, now = observed.spec, observed.now
    known = () if observed.view is None else observed.view.pool.workers
    recorded = [worker for worker in observed.record.workers if worker.uid or worker.name not in memory.taken]
    workers = see(spec.key, recorded, observed.pods, observed.nodes, known, now, told=observed.told)
    record = proven(_followed(_resolved(observed, settings, workers), workers, now), workers)
    declared = _declared(observed, settings, record, workers)
    if spec.paused or not record.model_version:
        return Plan(record=record, workers=tuple(workers), declared=declared, decision=None)
    record, bad = avoiding(record, workers, memory, settings, now)
    victims = _still_leaving(spec, record, workers)
    victims += [seen.name for seen in bad if seen.name not in victims]
    seen_now = replace(record, victims=tuple(victims))
    snapshot = snapshot_of(
        spec,
        seen_now,
        workers,
        observed.view,
        budget=budget,
        resync_seconds=settings.resync_seconds,
        cached=uses_caches(spec, observed.caches),
        memory=memory,
        now=now,
    )
    decision = decision_of(observed, snapshot, record)
    victims += decision.remove
    replacing, staying = _being_replaced(workers, record, victims), decision.workers - decision.start
    wanted = max(decision.workers, min(staying + replacing, spec.maximum))
    asked = min(decision.start, max(0, wanted - staying - replacing))  # those hold their GPUs until they are gone
    owed = 0
    if observed.told:
        victims += surplus(spec, workers, victims)
        victims += versions.strangers(record, workers, victims)
        owed = versions.kept(observed, record, wanted)
        spared = versions.spared(record, workers, victims, owed)
        victims += replaced(spec, workers, record.revision, wanted, victims, spared)
        owed = versions.owed(observed, record, workers, owed - len(spared))
    room = _room(spec, workers, budget)
    if owed > asked and not room:
        victims += versions.making_room(record, workers, victims)
    obstacle = memory.refused or obstacle_of(observed, record, workers)
    most = 0 if obstacle else loads_left(observed, workers, settings.loads_per_node)
    first = first_of(record, workers, victims, now)
    if first is not None:
        most = min(most, owed + (not first))
    start = min(max(asked, min(owed, room)), most)
    wanted = max(wanted, min(staying + replacing + start, spec.maximum))
    started = _started(observed, record, start, owed)
    name = started[-1].name if started and not first else first
    awaited = sentence(name, asked - start, record) if name and asked > start and not obstacle else ""
    if len(started) < start:
        spread = " and takes one more by the pool's spread" if spec.scheduling.get("topologySpreadConstraints") else ""
        obstacle = f"No node with a cache has {spec.gpus} GPUs free{spread}."
    dropped = {seen.name for seen in workers if seen.pod is None and seen.name in victims}
    remaining = [worker for worker in record.workers if worker.name not in dropped]
    changed = wanted != record.desired or set(victims) - set(record.victims) or start
    record = replace(
        record,
        workers=(*remaining, *started),
        next_ordinal=record.next_ordinal + len(started),
        victims=tuple(name for name in victims if name not in dropped),
        desired=wanted,
        decision_time=now if changed else record.decision_time,
        decision_reason=decision.reason if changed else record.decision_reason,
        history=decision.history,
    )
    record = _waiting(observed, record)
    blocked = obstacle if decision.start or memory.refused else ""
    blocked = blocked or shortage or (decision.reason if decision.held_back else "")
    kept = tuple(seen for seen in workers if seen.name not in dropped)
    return Plan(
        record=record,
        workers=kept,
        declared=_with_obstacle(declared, blocked, workers),
        decision=decision,
        blocked=blocked,
        awaited=awaited,
        events=(("Normal", _verb(observed.record.desired, wanted), decision.reason),)
        if wanted != (observed.record.desired or 0)
        else (),
    )


def _room(spec: PoolSpec, workers: Sequence[Seen], budget: int | None) -> int:
    """How many workers more there may be, whatever is wanted; leaving ones still hold their GPUs."""
    most = spec.maximum if budget is None else min(spec.maximum, budget)
    return max(0, most - sum(seen.state is not State.LOST for seen in workers))


def _started(observed: Observed, record: Record, count: int, owed: int) -> list[WorkerRecord]:
    """Records of new workers: with a node and its cache's claim, where there are caches and while there is room.

    As many as are `owed` are of the earlier version.
    """
    spec = observed.spec
    homes: list[NodeCache | None] = [None] * count
    if uses_caches(spec, observed.caches):
        used = Counter(observed.gpus_used)
        for worker in record.workers:
            used[worker.node] += 0 if worker.uid else spec.gpus
        avoided = {node.node for node in record.avoided if node.until > observed.now}
        own = Counter(worker.node for worker in record.workers)
        homes = [*places(spec, record.model_version, observed.caches, observed.nodes, used, avoided, own, count)]
    return [
        WorkerRecord(
            name=spec.key.worker(record.next_ordinal + number),
            since=observed.now,
            revision=record.revision,
            node="" if home is None else home.node,
            claim="" if home is None else home.claim,
            model_version=record.earlier_version if number < owed else "",
        )
        for number, home in enumerate(homes)
    ]


def _waiting(observed: Observed, record: Record) -> Record:
    """With what those wait for that are not created yet."""
    caches = {cache.node: cache for cache in observed.caches}
    workers = [
        replace(worker, reason=fetching(caches.get(worker.node), record.version_for(worker)))
        if worker.claim and not worker.uid
        else worker
        for worker in record.workers
    ]
    return replace(record, workers=tuple(workers))


def _being_replaced(workers: Sequence[Seen], record: Record, victims: Sequence[str]) -> int:
    """Workers that leave because they are outdated: they are wanted, if not as they are."""
    leaving = [seen for seen in outdated(workers, record.revision) if seen.name in victims or seen.deleted]
    return sum(seen.state is not State.LOST for seen in leaving)


def _verb(before: int | None, after: int) -> str:
    return "ScaledUp" if before is None or after > before else "ScaledDown"


def _resolved(observed: Observed, settings: OperatorSettings, workers: Sequence[Seen]) -> Record:
    """With image, version and revision as they are to be."""
    spec, record = observed.spec, versions.resolved(observed, workers)
    default = record.default_image or settings.worker_image
    image = spec.image or default
    known = revision(spec, image, record.model_version) if record.model_version else record.revision
    return replace(record, image=image, default_image=default, revision=known)


def _followed(record: Record, workers: Sequence[Seen], now: float) -> Record:
    """With the workers as they are seen, and the loads that have ended."""
    before = {worker.name: worker.state for worker in record.workers}
    for seen in workers:
        if seen.state in READY and before.get(seen.name) in {State.LOADING, State.CREATING}:
            record = record.with_load(
                Load(now, max(0.0, now - seen.scheduled_time), seen.record.node, bool(seen.record.claim))
            )
    taken = [number for seen in workers if (number := ordinal_of(seen.name)) is not None]
    return replace(
        record,
        workers=tuple(seen.record for seen in workers),
        next_ordinal=max([record.next_ordinal, *(number + 1 for number in taken)]),
    )


def _declared(
    observed: Observed, settings: OperatorSettings, record: Record, workers: Sequence[Seen]
) -> pool_pb2.Pool | None:
    spec = observed.spec
    if not record.model_version:
        return None
    wanted = record.desired or 0
    version = versions.accepted(observed, record, workers, record.victims, wanted)
    if settings.worker_discovery == "service":
        host = f"{spec.key.objects}.{spec.key.namespace}.svc.{settings.cluster_domain}"
        targets = [f"{host}:{WORKER_PORT}"]
    else:
        targets = sorted(f"{seen.address}:{WORKER_PORT}" for seen in workers if seen.address)
    return pool_pb2.Pool(
        name=spec.key.pool,
        variant=record.variant,
        model_version=version,
        earlier_versions=sorted({record.model_version, record.earlier_version} - {version, ""}),
        max_workers=spec.maximum,
        default_for_variant=spec.default_for_variant,
        distilled=spec.distilled,
        worker_targets=targets,
    )


def _with_obstacle(declared: pool_pb2.Pool | None, blocked: str, workers: Sequence[Seen]) -> pool_pb2.Pool | None:
    """The pool with what keeps a wanted worker from coming, for those whose generations wait."""
    waiting = [seen for seen in workers if seen.state is State.UNSCHEDULABLE]
    reason = blocked or (waiting[0].record.reason if waiting else "")
    if f"Insufficient {GPU}" in reason:
        reason = f"no GPU is free: {reason}"
    if declared is not None:
        declared.obstacle = reason[:LONGEST_OBSTACLE]
    return declared


def _still_leaving(spec: PoolSpec, record: Record, workers: Sequence[Seen]) -> list[str]:
    """Victims of earlier rounds that are still here.

    One that was given a generation before it was fenced stays, unless it may end that.
    """
    here = {seen.name: seen for seen in workers if seen.name in record.victims}
    waiting = patient(spec, workers, list(here), record.revision)
    busy = {name for name, seen in here.items() if seen.state is State.BUSY and name not in waiting}
    return [name for name in record.victims if name in here and name not in busy]
