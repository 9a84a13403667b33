"""Quarantine: generations under which worker processes died again and again, with the evidence.

FAILED is final, so what is released is not queued again by itself: from then on its like is taken again, and its tenant
may repeat it. Its like is what differs in nothing but the seed: the noise kills no process, the rest may.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from sqlalchemy import Row, and_, insert, select, update

from wan22.errors import FailedPrecondition, NotFound, Reason
from wan22.v1 import admin_pb2, generation_pb2, inference_pb2
from wan22_gateway import lifecycle
from wan22_gateway.lifecycle import State, timestamp
from wan22_gateway.store import checkpoints, pools
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.generations import GenerationRow
from wan22_gateway.store.schema import attempts, generations, quarantine, workers

MAX_DEATHS = 3
"""Deaths of a worker's process under one generation after which it is quarantined."""
MIN_WORKERS = 2
"""On how many workers they must have been, where the pool has as many: one bad worker is no proof."""


def deaths(tx: Transaction, generation: str) -> Sequence[Row[Any]]:
    """The attempts of a generation that ended with the death of their worker's process, in order."""
    died = and_(attempts.c.generation == generation, attempts.c.outcome == "died")
    return tx.execute(select(attempts).where(died).order_by(attempts.c.number)).all()


def put_in(tx: Transaction, row: GenerationRow) -> FailedPrecondition | None:
    """Why a generation must not be tried again, recorded with its evidence; None while it may be."""
    died = deaths(tx, row.id)
    on = list(dict.fromkeys(attempt.worker for attempt in died))
    if len(died) < MAX_DEATHS or len(on) < min(MIN_WORKERS, len(pools.workers_of(tx, row.pool))):
        return None
    kept = checkpoints.newest(tx, row.id)
    step = kept[0].step if kept else 0
    values = {
        "tenant": row.tenant,
        "likeness": likeness(row.model_version, row.parameters),
        "quarantine_time": tx.now,
        "evidence": _evidence(tx, row, died, step).SerializeToString(),
    }
    tx.execute(insert(quarantine).values(generation=row.id, **values))
    text = f"{len(died)} worker processes died under generations/{row.id}, on {', '.join(on)}: it is not tried again "
    text += "until an administrator releases it."
    metadata = {
        "deaths": str(len(died)),
        "attempts": ", ".join(str(attempt.number) for attempt in died),
        "workers": ", ".join(attempt.worker for attempt in died),
        "times": ", ".join(timestamp(attempt.end_time or tx.now).ToJsonString() for attempt in died),
        "last_checkpoint_step": str(step),
    }
    return FailedPrecondition(text, reason=Reason.QUARANTINED, metadata=metadata)


def _evidence(tx: Transaction, row: GenerationRow, died: Sequence[Row[Any]], step: int) -> admin_pb2.Quarantined:
    parameters = generation_pb2.Parameters.FromString(row.parameters)
    parameters.ClearField("prompt")
    parameters.ClearField("negative_prompt")
    evidence = admin_pb2.Quarantined(
        generation=f"generations/{row.id}",
        tenant=f"tenants/{row.tenant}",
        variant=row.variant,
        pool=row.pool,
        model_version=row.model_version,
        parameters=parameters,
        quarantine_time=timestamp(tx.now),
        last_checkpoint_step=step,
    )
    for attempt in died:
        death = evidence.deaths.add(
            attempt=attempt.number,
            worker=attempt.worker,
            worker_uid=attempt.worker_uid,
            start_time=timestamp(attempt.start_time),
            end_time=timestamp(attempt.end_time or tx.now),
            resumed_step=attempt.resumed_step,
        )
        if attempt.progress is not None:
            death.progress.ParseFromString(attempt.progress)
    return evidence


def likeness(model_version: str, parameters: bytes) -> str:
    """A digest that generations share which differ in nothing but the seed. `parameters` are complete."""
    message = generation_pb2.Parameters.FromString(parameters)
    message.ClearField("seed")
    canonical = json.dumps([model_version, MessageToDict(message)], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def tenants(tx: Transaction) -> set[str]:
    """Those that have anything in quarantine; for all others there is nothing to check."""
    return set(tx.execute(_TENANTS).scalars().all())


_TENANTS = select(quarantine.c.tenant).where(quarantine.c.release_time.is_(None)).distinct()


def check(tx: Transaction, tenant: str, model_version: str, parameters: bytes) -> None:
    """Raises FailedPrecondition (QUARANTINED) when the like of a request is in quarantine."""
    like = and_(quarantine.c.tenant == tenant, quarantine.c.likeness == likeness(model_version, parameters))
    query = select(quarantine.c.generation).where(like, quarantine.c.release_time.is_(None)).limit(1)
    found = tx.execute(query).scalar_one_or_none()
    if found is not None:
        text = f"generations/{found}, which differs at most in its seed, is in quarantine: worker processes died under "
        text += "it. Ask an administrator to release it, or change the parameters."
        raise FailedPrecondition(text, reason=Reason.QUARANTINED, metadata={"generation": found})


def list_all(tx: Transaction, *, released: bool) -> list[admin_pb2.Quarantined]:
    """Those in quarantine, newest first; with `released` those that have been released, too."""
    query = select(quarantine).order_by(quarantine.c.quarantine_time.desc(), quarantine.c.generation)
    if not released:
        query = query.where(quarantine.c.release_time.is_(None))
    return [_message(row) for row in tx.execute(query).all()]


def release(tx: Transaction, generation: str) -> admin_pb2.Quarantined:
    """Takes the like of a generation again; a second time changes nothing. Raises NotFound."""
    mine = quarantine.c.generation == generation
    tx.execute(update(quarantine).where(mine, quarantine.c.release_time.is_(None)).values(release_time=tx.now))
    row = tx.execute(select(quarantine).where(mine)).one_or_none()
    if row is None:
        raise NotFound(f"generations/{generation} is not in quarantine: ListQuarantined names those that are.")
    return _message(row)


def is_back(tx: Transaction, worker: inference_pb2.Worker) -> bool:
    """Whether a worker that answers counts as lost."""
    return _lost(tx, worker) is not None


def heard_again(tx: Transaction, worker: inference_pb2.Worker) -> None:
    """Learns from a worker that counted as lost, and answers again, whether its process had died.

    A crashed container is often started again only after its lease has lapsed. The same worker with another process has
    died; with the same process it was only out of reach.
    """
    before = _lost(tx, worker)
    if before is None:
        return
    outcome = "lost" if before.incarnation == worker.incarnation else "died"
    silent = and_(attempts.c.worker_uid == worker.uid, attempts.c.outcome == "silent")
    ended = update(attempts).where(silent).values(outcome=outcome).returning(attempts.c.generation)
    for generation in tx.execute(ended).scalars().all():
        waiting = and_(generations.c.id == generation, generations.c.state == State.QUEUED)
        row = tx.execute(select(generations).where(waiting, generations.c.claimed_worker.is_(None))).one_or_none()
        if row is not None and outcome == "died" and (deadly := put_in(tx, row)) is not None:
            lifecycle.fail_waiting(tx, generation, deadly)


def _lost(tx: Transaction, worker: inference_pb2.Worker) -> Row[Any] | None:
    lost = and_(workers.c.name == worker.name, workers.c.uid == worker.uid, workers.c.lost)
    return tx.execute(select(workers).where(lost)).one_or_none()


def _message(row: Row[Any]) -> admin_pb2.Quarantined:
    message = admin_pb2.Quarantined.FromString(row.evidence)
    if row.release_time is not None:
        message.release_time.CopyFrom(timestamp(row.release_time))
    return message
