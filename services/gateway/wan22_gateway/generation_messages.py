"""Rows as messages: a generation as clients see it, with what it waits for."""

from __future__ import annotations

import json
from collections.abc import Sequence

from google.rpc import status_pb2

from wan22.v1 import generation_pb2
from wan22_gateway.lifecycle import State, timestamp
from wan22_gateway.queue_view import view
from wan22_gateway.store import checkpoints, generations, pools, turns
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.generations import GenerationRow
from wan22_gateway.store.pools import WorkerRow
from wan22_gateway.store.tenants import limits_of


def generation_message(tx: Transaction, row: GenerationRow) -> generation_pb2.Generation:
    """The whole resource."""
    message = generation_pb2.Generation(
        name=f"generations/{row.id}",
        state=generation_pb2.Generation.State.Value(row.state),
        variant=row.variant,
        pool=row.pool,
        model_version=row.model_version,
        labels=row.labels,
        cut_texts=json.loads(row.cut_texts) if row.cut_texts != "{}" else None,
        siblings=[f"generations/{sibling}" for sibling in json.loads(row.siblings)] if row.siblings != "[]" else None,
        attempt_count=row.attempt_count,
        last_sequence=row.last_sequence,
        predicted_seconds=row.predicted_seconds,
        priority=generation_pb2.Generation.Priority.ValueType(row.priority),
        preview_interval=row.preview_interval,
    )
    message.parameters.ParseFromString(row.parameters)
    for field in ("create_time", "start_time", "end_time", "cancel_requested_time", "deadline"):
        value = getattr(row, field)
        if value is not None:
            getattr(message, field).FromMicroseconds(value)
    if row.state == State.RUNNING and row.progress is not None:
        message.progress.ParseFromString(row.progress)
    if row.state == State.QUEUED:
        place, start = _turn(tx, row)
        message.queue_position = place
        message.waiting_for = waiting_for(tx, row)
        if start is not None:
            message.predicted_start_time.FromMicroseconds(start)
            message.predicted_end_time.FromMicroseconds(start + round(row.predicted_seconds * 1_000_000))
    if row.error is not None:
        message.error.CopyFrom(status_pb2.Status.FromString(row.error))
    origin = generations.last_origin(tx, row) if row.attempt_count else None
    if origin is not None:
        message.resumed_step, message.restart_reason = origin.resumed_step, origin.restart_reason
        if row.state == State.RUNNING:
            end = origin.start_time + round(row.predicted_seconds * 1_000_000)
            message.predicted_end_time.CopyFrom(timestamp(max(tx.now, end)))
    if row.asked_texts is not None:
        message.asked_texts.ParseFromString(row.asked_texts)
    _add_result(message, row)
    return message


def _add_result(message: generation_pb2.Generation, row: GenerationRow) -> None:
    if row.video_digest is not None:
        message.video.CopyFrom(video_message(row))
    if row.keep_for is not None:
        message.keep_for.FromMicroseconds(row.keep_for)
    if row.reused_from is not None:
        message.reused_from = f"generations/{row.reused_from}"


def video_message(row: GenerationRow) -> generation_pb2.Video:
    """The video of a SUCCEEDED generation, also of one whose video is gone by now."""
    message = generation_pb2.Video(size_bytes=row.video_size, digest=row.video_digest)
    if row.video_expire_time is not None:
        message.expire_time.CopyFrom(timestamp(row.video_expire_time))
    return message


def queue_snapshot(tx: Transaction, row: GenerationRow) -> generation_pb2.QueueSnapshot:
    """Where a QUEUED generation stands now."""
    place, start = _turn(tx, row)
    snapshot = generation_pb2.QueueSnapshot(queue_position=place, waiting_for=waiting_for(tx, row))
    if start is not None:
        snapshot.predicted_start_time.CopyFrom(timestamp(start))
    return snapshot


def _turn(tx: Transaction, row: GenerationRow) -> tuple[int, int | None]:
    """The place of a QUEUED generation, and the time of its predicted start."""
    queue = view(tx, row.pool)
    place = queue.place_of(row)
    return place.position, queue.time_of(place)


def waiting_for(tx: Transaction, row: GenerationRow) -> str:
    """What a QUEUED generation waits for, in words."""
    if row.cancel_requested_time is not None:
        return "its cancellation"
    if row.claimed_worker is not None:
        prepared = any(worker.prepared == row.id for worker in _workers(tx, row.pool))
        return f"its turn on {row.claimed_worker}" if prepared else f"{row.claimed_worker} to start it"
    allowed = tx.once(("limits", row.tenant), lambda: limits_of(tx, row.tenant)).max_running
    if allowed is not None and tx.once("running", lambda: turns.running(tx)).get(row.tenant, 0) >= allowed:
        return f"another generation of its tenant: {allowed} may run at once"
    return _missing_worker(tx, row) or "its turn"


def _missing_worker(tx: Transaction, row: GenerationRow) -> str:
    """Which worker a generation waits for; empty when one that fits only has to be free."""
    answering = [worker for worker in _workers(tx, row.pool) if worker.lease_expire_time > tx.now]
    if not answering:
        obstacle = tx.once(("obstacle", row.pool), lambda: pools.get(tx, row.pool).obstacle)
        return f"a worker: {obstacle}" if obstacle else f"a worker: none of {row.pool} answers yet"
    alive = [worker for worker in answering if worker.model_version in {None, row.model_version}]
    if not alive:
        return f"a worker that holds {row.model_version}: those of {row.pool} hold another version now"
    ready = [worker for worker in alive if worker.state in {"IDLE", "BUSY"} and not is_drained(tx, worker)]
    made = checkpoints.newest(tx, row.id) if row.attempt_count else None
    if ready and made and all(worker.numerics_digest != made[0].numerics_digest for worker in ready):
        return f"a worker of the same numerics, to go on from step {made[0].step}"
    if ready:
        return ""
    loading = [worker for worker in alive if worker.state == "LOADING"]
    if loading:
        best = max(loaded_fraction(worker) for worker in loading)
        return f"a worker to load the model: {best:.0%} loaded"
    broken = next((worker for worker in alive if worker.state == "BROKEN"), None)
    if broken is not None:
        return f"a working worker: {broken.name} is broken: {broken.error}"
    return f"a worker: all of {row.pool} are draining"


def _workers(tx: Transaction, pool: str) -> Sequence[WorkerRow]:
    return tx.once(("workers", pool), lambda: pools.workers_of(tx, pool))


def is_drained(tx: Transaction, worker: WorkerRow) -> bool:
    """True while the operator has barred the worker from new attempts."""
    return worker.drain_expire_time is not None and worker.drain_expire_time > tx.now


def loaded_fraction(worker: WorkerRow) -> float:
    """Share of the weights that a worker has in memory, 0 to 1."""
    return worker.bytes_loaded / worker.bytes_total if worker.bytes_total else 0.0
