"""What becomes of an attempt: its result stored, its worker lost, refused or stopped; each one fenced transaction."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from google.rpc import status_pb2
from sqlalchemy import and_, select, update

from wan22.errors import DeadlineExceeded, InvalidRequest, Reason
from wan22.parameter_messages import complete_from_message
from wan22.recipe import Recipe, numerics_digest
from wan22.status import from_status
from wan22.v1 import generation_pb2, inference_pb2
from wan22.variants import VARIANTS
from wan22_gateway import lifecycle
from wan22_gateway.cost import work
from wan22_gateway.lifecycle import UNFINISHED, Fence, State, StoredVideo
from wan22_gateway.results import Results, recipe_key, video_key
from wan22_gateway.store import checkpoints, claims, objects, pools, quarantine
from wan22_gateway.store.claims import Claim, Loss
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.generations import GenerationRow
from wan22_gateway.store.pools import WorkerRow
from wan22_gateway.store.schema import attempts, generations, workers

log = logging.getLogger(__name__)


def row_of(tx: Transaction, fence: Fence) -> GenerationRow | None:
    """The unfinished generation of a fence; None when the fence is old or the generation has ended."""
    query = select(generations).where(fence.condition, generations.c.state.in_(UNFINISHED))
    return tx.execute(query.where(generations.c.claimed_worker.is_not(None))).one_or_none()


def worker_of(tx: Transaction, claim: Claim) -> WorkerRow:
    """The row of a claim's worker."""
    return tx.execute(select(workers).where(workers.c.name == claim.worker)).one()


def is_late(tx: Transaction, row: GenerationRow) -> bool:
    """Whether a generation's deadline is over, or cannot be made by one that a worker has not started yet."""
    if row.deadline is None:
        return False
    return bool(row.deadline <= tx.now) or (row.state == State.QUEUED and claims.is_overdue(tx, row))


def not_begun(tx: Transaction, claim: Claim) -> None:
    """Gives a claim back that came to nothing through no fault of the worker's; a RUNNING attempt is lost."""
    row = row_of(tx, claim.fence)
    if row is not None and row.state == State.QUEUED and row.cancel_requested_time is None:
        lifecycle.release_claim(tx, claim.fence)
    else:
        lost(tx, claim, Loss(f"{claim.worker} no longer holds it", died=False))


async def store(
    database: Database,
    results: Results,
    fence: Fence,
    video: Path,
    finished: inference_pb2.GenerateEvent.Finished,
) -> None:
    """Makes a finished video durable and its generation SUCCEEDED; drops it when the fence is old. Raises OSError."""
    key = video_key(fence.generation, fence.attempt, fence.owner_epoch)
    beside = recipe_key(key)
    for begun in (key, beside):
        await database.write(objects.begin, begun)
    await results.put(beside, finished.recipe.encode())
    await results.put(key, video)
    stored = StoredVideo(key, finished.video.size_bytes, finished.video.digest, _numerics(finished.recipe))

    def settle(tx: Transaction) -> bool:
        if not lifecycle.succeed(tx, fence, stored):
            objects.discard(tx, key)
            objects.discard(tx, beside)
            return False
        objects.commit(tx, key)
        objects.commit(tx, beside)
        row = tx.execute(select(generations).where(generations.c.id == fence.generation)).one()
        _learn(tx, row, fence, finished.compute_seconds)
        return True

    if not await database.write(settle):
        log.info("generations/%s ended otherwise before its video was stored: dropped.", fence.generation)


def _numerics(recipe: str) -> str:
    """The digest of what made a video, by its recipe; empty, so that it is never reused, for one of another version."""
    try:
        return numerics_digest(Recipe.from_json(recipe).numerics)
    except InvalidRequest as error:
        log.info("This video is not reused: %s", error.message)
        return ""


def _learn(tx: Transaction, row: GenerationRow, fence: Fence, compute_seconds: float) -> None:
    """Lets the pool learn its speed from a generation that one attempt did from its start."""
    of_attempt = and_(attempts.c.generation == fence.generation, attempts.c.number == fence.attempt)
    resumed = tx.execute(select(attempts.c.resumed_step).where(of_attempt)).scalar_one()
    if resumed == 0 and compute_seconds > 0:
        parameters = complete_from_message(generation_pb2.Parameters.FromString(row.parameters))
        pools.learn(tx, row.pool, work(VARIANTS[row.variant], parameters), compute_seconds)


def restarted(tx: Transaction, claim: Claim, incarnation: str) -> Claim | None:
    """Takes note that another process than was claimed answers for the worker.

    A generation that had not started loses nothing: the claim, which is returned, is the new process's from now on. One
    that was RUNNING has lost its worker: None.
    """
    row = row_of(tx, claim.fence)
    if row is None:
        return None
    if row.state == State.RUNNING:
        lost(tx, claim, Loss(f"{claim.worker} ended and was started again", died=True))
        return None
    of_claim = update(generations).where(claim.fence.condition)
    tx.execute(of_claim.values(claimed_incarnation=incarnation))
    tx.execute(update(workers).where(workers.c.name == claim.worker).values(incarnation=incarnation))
    return replace(claim, incarnation=incarnation)


def failed(tx: Transaction, claim: Claim, error: status_pb2.Status) -> None:
    """Takes a worker's failure: FAILED, or QUEUED without its checkpoints where one of them alone was at fault."""
    if from_status(error).reason is not Reason.DAMAGED_CHECKPOINT:
        lifecycle.fail(tx, claim.fence, error)
    elif row_of(tx, claim.fence) is not None:
        reason = error.message.rstrip(".")
        checkpoints.drop_all(tx, claim.fence.generation)
        lifecycle.note_restart(tx, claim.fence, reason)
        lost(tx, claim, Loss(reason, died=False))


def spent(tx: Transaction, claim: Claim) -> None:
    """Takes a worker's word that this number was used and released before: the next try has a higher one."""
    row = row_of(tx, claim.fence)
    if row is not None and row.state == State.QUEUED:
        tx.execute(update(generations).where(claim.fence.condition).values(attempt_count=claim.fence.attempt))
    lost(tx, claim, Loss(f"{claim.worker} no longer holds it", died=False))


def lost(tx: Transaction, claim: Claim, gone: Loss) -> None:
    """Queues the generation of a lost worker again; CANCELLED if that was asked for, FAILED in quarantine."""
    row = row_of(tx, claim.fence)
    if row is None:
        return
    if row.cancel_requested_time is not None:
        lifecycle.cancelled(tx, claim.fence)
    elif is_late(tx, row):
        lifecycle.fail(tx, claim.fence, _deadline_missed(tx, row))
    elif row.state == State.QUEUED:
        lifecycle.release_claim(tx, claim.fence)
    else:
        if not checkpoints.made_in(tx, claim.fence.generation, claim.fence.attempt):
            lifecycle.note_end(tx, claim.fence, "died" if gone.died else "silent" if gone.silent else "lost")
        deadly = quarantine.put_in(tx, row) if gone.died else None
        if deadly is not None:
            lifecycle.fail(tx, claim.fence, deadly)
        else:
            lifecycle.requeue(tx, claim.fence, gone.reason)


def _deadline_missed(tx: Transaction, row: GenerationRow) -> DeadlineExceeded:
    if row.state == State.QUEUED:
        return claims.deadline_missed(tx, row)
    text = f"generations/{row.id} did not end by {lifecycle.timestamp(row.deadline).ToJsonString()}: it was stopped."
    return DeadlineExceeded(text, reason=Reason.DEADLINE_MISSED)


def refused(tx: Transaction, claim: Claim, worker_state: str) -> None:
    """Takes a refusal: no attempt if it had not started, a lost one if it had; the worker counts as what it said.

    One that refuses to prepare is not asked again beside the same generation.
    """
    row = row_of(tx, claim.fence)
    if row is None:
        return
    if row.state == State.RUNNING or row.cancel_requested_time is not None:
        lost(tx, claim, Loss(f"{claim.worker} no longer holds it", died=False))
    else:
        beside = and_(workers.c.name == claim.worker, workers.c.prepared == claim.fence.generation)
        tx.execute(update(workers).where(beside).values(refuses_beside=workers.c.generation))
        lifecycle.release_claim(tx, claim.fence)
    tx.execute(update(workers).where(workers.c.name == claim.worker).values(state=worker_state))
    tx.notify("workers")


def stopped(tx: Transaction, claim: Claim) -> None:
    """Takes a worker's word that it has stopped: CANCELLED if that was asked for, else queued again."""
    lost(tx, claim, Loss(f"{claim.worker} stopped it without being asked", died=False))
