"""Which model version a pool's workers hold, and how it goes over from one to the next while there is work.

A generation keeps the version that it was accepted with, so for a while there are workers of two versions. Workers that
come hold the next one; generations are accepted with it once one of them is ready, and the earlier version keeps as
many workers as its queue takes, until nothing of it is left.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from math import ceil

from wan22.v1 import pool_pb2
from wan22_operator.observed import Observed
from wan22_operator.record import READY, Record, State
from wan22_operator.spec import PoolSpec
from wan22_operator.workers import Seen

STAYS_FIRST = (State.BUSY, State.IDLE, State.LOADING, State.CREATING, State.UNSCHEDULABLE)
"""In this order workers of the earlier version are kept for its queue."""


def delay(observed: Observed, workers: Sequence[Seen]) -> str:
    """Why the version that the model means now is not taken yet; empty where it is, or may be."""
    record, model = observed.record, observed.model
    if model is None or record.model_version in {"", model.name}:
        return ""
    if not observed.told:
        return "it is taken when the gateway's figures are fresh" if record.workers else ""
    if has_work(observed) and not _told_versions(observed):
        return "it is taken when the gateway says which versions workers hold, or present work is done"
    if record.earlier_version not in {"", model.name} and not _untried(observed):
        return f"it is taken when {record.earlier_version} is gone"
    if model.variant != record.variant and has_work(observed):
        return "it is of another variant, and is taken when present work is done"
    if observed.spec.trigger == "Manual" and any(not seen.deleted for seen in workers):
        return "update.trigger is Manual: it is taken when no present worker is left"
    return ""


def _told_versions(observed: Observed) -> bool:
    """Whether the gateway dispatches by the versions that workers hold: the release before does not."""
    return observed.view is not None and any(worker.model_version for worker in observed.view.pool.workers)


def _untried(observed: Observed) -> bool:
    """Whether nothing was ever accepted with the version that an earlier one goes over to: it may be passed over."""
    return observed.view is not None and observed.view.pool.model_version == observed.record.earlier_version


def has_work(observed: Observed) -> bool:
    """Whether anything of the pool is unfinished, as far as that is known."""
    if observed.view is None or not observed.told:
        return bool(observed.record.workers)
    demand = observed.view.pool.demand
    return bool(demand.queued or demand.running)


def resolved(observed: Observed, workers: Sequence[Seen]) -> Record:
    """The record with model, version and variant as they are to be, and the earlier version while anything is left."""
    record, model, spec = observed.record, observed.model, observed.spec
    if model is not None and not delay(observed, workers):
        stays = record.model_version == model.name or (_untried(observed) and record.earlier_version != model.name)
        before = record.earlier_version if stays else record.model_version
        record = replace(
            record, model=spec.model, model_version=model.name, variant=model.variant, earlier_version=before
        )
    elif model is None and record.model != spec.model and not has_work(observed):
        return replace(record, model=spec.model, model_version="", variant="", earlier_version="")
    if observed.view is None or not observed.told:
        return record
    return replace(record, earlier_version=_earlier(record, observed.view.pool, workers))


def _earlier(record: Record, pool: pool_pb2.Pool, workers: Sequence[Seen]) -> str:
    if pool.model_version != record.model_version:
        return record.earlier_version  # the gateway does not have the new one yet
    unfinished = [work.model_version for work in pool.demand.earlier]
    held = {seen.record.model_version for seen in workers}
    if record.earlier_version in {*unfinished, *held}:
        return record.earlier_version
    return unfinished[0] if unfinished else ""


def accepted(observed: Observed, record: Record, workers: Sequence[Seen], leaving: Collection[str], wanted: int) -> str:
    """The version that new generations are to be accepted with.

    The next one once a worker of it is ready, or where no more workers of the earlier one stay than may be missing.
    """
    view = observed.view
    if view is None or view.pool.model_version != record.earlier_version or view.pool.variant != record.variant:
        return record.model_version
    ready = [seen for seen in workers if seen.state in READY and not seen.deleted and seen.name not in leaving]
    if any(seen.record.model_version == record.model_version for seen in ready):
        return record.model_version
    staying = sum(seen.record.model_version == record.earlier_version for seen in ready)
    return record.model_version if staying <= observed.spec.unavailable(wanted) else record.earlier_version


def kept(observed: Observed, record: Record, wanted: int) -> int:
    """How many workers the queue of the earlier version takes.

    Its share of those wanted, at least one until it is empty, and so few that as many as may be missing are replaced.
    """
    if not record.earlier_version or observed.view is None:
        return 0
    pool = observed.view.pool
    queued = sum(bucket.count for bucket in pool.demand.queued)
    seconds = whole = sum(bucket.predicted_seconds for bucket in pool.demand.queued)
    others = [work for work in pool.demand.earlier if work.model_version != record.earlier_version]
    if pool.model_version == record.earlier_version:
        queued -= sum(work.queued for work in others)
        seconds -= sum(work.queued_seconds for work in others)
    else:
        mine = [work for work in pool.demand.earlier if work.model_version == record.earlier_version]
        queued, seconds = sum(work.queued for work in mine), sum(work.queued_seconds for work in mine)
    if queued <= 0:
        return 0
    share = ceil(wanted * seconds / whole) if whole else wanted
    return min(queued, max(1, min(share, wanted - _missing(observed.spec, wanted))))


def _missing(spec: PoolSpec, wanted: int) -> int:
    return 0 if spec.trigger == "Manual" else spec.unavailable(wanted)


def spared(record: Record, workers: Sequence[Seen], leaving: Collection[str], count: int) -> list[str]:
    """Names of up to `count` workers of the earlier version that stay for its queue."""
    mine = [
        seen
        for seen in workers
        if seen.record.model_version == record.earlier_version
        and seen.state in STAYS_FIRST
        and not seen.deleted
        and seen.name not in leaving
    ]
    mine.sort(key=lambda seen: STAYS_FIRST.index(seen.state))
    return [seen.name for seen in mine[:count]]


def owed(observed: Observed, record: Record, workers: Sequence[Seen], missing: int) -> int:
    """How many workers of the earlier version are to be made for its queue; none where they do not work."""
    mine = [seen for seen in workers if seen.record.model_version == record.earlier_version]
    fails = any(seen.state is State.BROKEN for seen in mine) or any(
        node.until > observed.now for node in record.avoided
    )
    return 0 if fails else missing


def strangers(record: Record, workers: Sequence[Seen], leaving: Collection[str]) -> list[str]:
    """Workers of a version that is neither of the two: the gateway gives them nothing."""
    ours = {"", record.model_version, record.earlier_version}
    others = [seen for seen in workers if seen.record.model_version not in ours and not seen.deleted]
    return [seen.name for seen in others if seen.name not in leaving]


def making_room(record: Record, workers: Sequence[Seen], leaving: Collection[str]) -> list[str]:
    """An idle worker that gives way, where there is room for no more, to one of the earlier version; a busy one not."""
    idle = [
        seen.name
        for seen in workers
        if seen.state is State.IDLE
        and seen.record.model_version != record.earlier_version
        and not seen.deleted
        and seen.name not in leaving
    ]
    return idle[:1]
