"""Whoever owns a generation no longer writes nothing of it: every function that takes a fence or a claim is tried."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

import pytest
from google.rpc.status_pb2 import Status
from sqlalchemy import select

from wan22.errors import InternalError
from wan22.v1 import generation_pb2, inference_pb2
from wan22_gateway import lifecycle, older_store, outcome
from wan22_gateway.lifecycle import StoredVideo
from wan22_gateway.result_places import open_place
from wan22_gateway.results import Results
from wan22_gateway.resumption import Resumption
from wan22_gateway.store import claims
from wan22_gateway.store.claims import Claim, Loss
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.schema import commits, metadata, objects

from . import rows

Write = Callable[[Transaction, Claim], object]
LOST = Loss("it is gone", died=True)
VIDEO = StoredVideo("videos/x", 3, "sha256:" + "1" * 64)
PREVIEW = generation_pb2.Preview(image=b"x", step=1)
OF_LIFECYCLE: dict[str, Write] = {
    "note_restart": lambda tx, claim: lifecycle.note_restart(tx, claim.fence, "x"),
    "start": lambda tx, claim: lifecycle.start(tx, claim.fence, claim.worker, "uid"),
    "progress": lambda tx, claim: lifecycle.progress(tx, claim.fence, generation_pb2.Progress(step=3)),
    "preview": lambda tx, claim: lifecycle.preview(tx, claim.fence, PREVIEW),
    "succeed": lambda tx, claim: lifecycle.succeed(tx, claim.fence, VIDEO),
    "fail": lambda tx, claim: lifecycle.fail(tx, claim.fence, InternalError("x")),
    "cancelled": lambda tx, claim: lifecycle.cancelled(tx, claim.fence),
    "note_end": lambda tx, claim: lifecycle.note_end(tx, claim.fence, "died"),
    "requeue": lambda tx, claim: lifecycle.requeue(tx, claim.fence, "x"),
    "release_claim": lambda tx, claim: lifecycle.release_claim(tx, claim.fence),
}
OF_OUTCOME: dict[str, Write] = {
    "not_begun": outcome.not_begun,
    "restarted": lambda tx, claim: outcome.restarted(tx, claim, "i2"),
    "failed": lambda tx, claim: outcome.failed(tx, claim, Status(code=13, message="x")),
    "spent": outcome.spent,
    "lost": lambda tx, claim: outcome.lost(tx, claim, LOST),
    "refused": lambda tx, claim: outcome.refused(tx, claim, "BUSY"),
    "stopped": outcome.stopped,
}
OF_OLDER_STORE: dict[str, Write] = {
    "go_beyond": lambda tx, claim: older_store.go_beyond(tx, claim, replace(claim.fence, owner_epoch=10)),
}
WRITES = [*OF_LIFECYCLE.items(), *OF_OUTCOME.items(), *OF_OLDER_STORE.items()]
DATA = b"abc"


def taking_fences(module: ModuleType) -> set[str]:
    """The public functions of a module that take a fence or a claim."""
    public = {
        name: function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }
    return {
        name
        for name, function in public.items()
        if {"Fence", "Claim"} & {parameter.annotation for parameter in inspect.signature(function).parameters.values()}
    }


def test_every_function_that_takes_a_fence_or_a_claim_is_tried() -> None:
    asking = {"is_newest", "row_of", "worker_of", "newest_seen"}
    with_a_test_of_its_own = {"store"}
    tried = OF_LIFECYCLE.keys() | OF_OUTCOME.keys() | OF_OLDER_STORE.keys() | with_a_test_of_its_own
    assert taking_fences(lifecycle) | taking_fences(outcome) | taking_fences(older_store) == tried | asking


def run(tx: Transaction) -> Claim:
    """A running attempt, whose owner another one has taken over from, with a checkpoint."""
    rows.add_pool(tx)
    rows.add_worker(tx)
    rows.add_generation(tx)
    claimed = claims.claim_next(tx, "owner", 15.0, 60.0)
    assert claimed is not None
    assert lifecycle.start(tx, claimed.fence, claimed.worker, "uid")
    lifecycle.progress(tx, claimed.fence, generation_pb2.Progress(step=1, num_steps=4))
    (taken,) = claims.take_over(tx, "other", 15.0, everything=True)
    return taken


def stale(claim: Claim) -> list[Claim]:
    """The same claim as earlier owners, and of an earlier attempt, had it."""
    fence = claim.fence
    older = (replace(fence, owner_epoch=fence.owner_epoch - 1), replace(fence, attempt=fence.attempt - 1))
    return [replace(claim, fence=each) for each in older]


def content(tx: Transaction) -> dict[str, list[Any]]:
    """All that the store has, but for the record of commits itself."""
    tables = [table for table in metadata.sorted_tables if table is not commits]
    return {table.name: sorted(map(str, tx.execute(select(table)).all())) for table in tables}


class _UndoneError(Exception):
    """Undoes a write, and has what the store would have after it."""


async def test_an_older_owner_or_attempt_writes_nothing(database: Database) -> None:
    newest = await database.write(run)
    before = await database.read(content)

    def try_and_undo(tx: Transaction, write: Write) -> None:
        write(tx, newest)
        raise _UndoneError(content(tx))

    for name, write in WRITES:
        for older in stale(newest):
            assert not await database.write(write, older), name
            assert await database.read(content) == before, name
        with pytest.raises(_UndoneError) as caught:
            await database.write(try_and_undo, write)
        (after,) = caught.value.args
        assert (after == before) is (name == "start"), name  # it has started already


async def test_an_older_owners_video_and_checkpoint_are_garbage_and_change_nothing(
    database: Database, tmp_path: Path
) -> None:
    newest = await database.write(run)
    before = await database.read(content)
    results, made = Results(open_place(str(tmp_path / "videos"))), tmp_path / "made"
    made.write_bytes(DATA)
    for number, older in enumerate(stale(newest)):
        await outcome.store(database, results, older.fence, made, inference_pb2.GenerateEvent.Finished(recipe="{}"))
        resumption = Resumption(database, results, older.fence, tmp_path / f"spool{number}")
        digest = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
        resumption.announce(inference_pb2.Checkpoint(step=1, size_bytes=len(DATA), digest=digest))
        await resumption.take(inference_pb2.CheckpointChunk(step=1, offset=0, data=DATA, crc32=crc32(DATA)))
    after = await database.read(content)
    assert {**after, objects.name: []} == before
    states = await database.read(lambda tx: list(tx.execute(select(objects.c.state)).scalars()))
    assert states == ["garbage"] * 6  # video, recipe and checkpoint of each
