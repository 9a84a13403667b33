"""What a finished attempt leaves in the store, all of it by one transaction."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from wan22.v1 import inference_pb2
from wan22.v1.generation_pb2 import Generation
from wan22_gateway import lifecycle, outcome
from wan22_gateway.lifecycle import State
from wan22_gateway.result_places import open_place
from wan22_gateway.results import Results, recipe_key, video_key
from wan22_gateway.store import claims, generations, webhooks
from wan22_gateway.store.claims import Claim
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.schema import attempts, objects, usage

from . import rows

DIGEST = "sha256:" + "1" * 64


def run(tx: Transaction) -> Claim:
    rows.add_pool(tx)
    rows.add_worker(tx)
    rows.add_generation(tx)
    webhooks.apply(tx, "default", url="https://a.test/", include_prompt=False, secret="whsec_MQ==", rotate=False)
    claimed = claims.claim_next(tx, "owner", 15.0, 60.0)
    assert claimed is not None
    assert lifecycle.start(tx, claimed.fence, claimed.worker, "uid")
    return claimed


async def test_success_video_event_usage_and_webhook_are_of_one_transaction(database: Database, tmp_path: Path) -> None:
    results, made = Results(open_place(str(tmp_path / "videos"))), tmp_path / "made.mp4"
    made.write_bytes(b"abc")
    fence = (await database.write(run)).fence
    finished = inference_pb2.GenerateEvent.Finished(recipe="{}")
    finished.video.size_bytes, finished.video.digest = 3, DIGEST
    await outcome.store(database, results, fence, made, finished)
    row = await database.read(generations.get, "default", fence.generation)
    key = video_key(fence.generation, fence.attempt, fence.owner_epoch)
    assert (row.state, row.video_key, row.video_size, row.video_digest) == (State.SUCCEEDED, key, 3, DIGEST)
    assert (row.claimed_worker, row.progress) == (None, None)
    *_, last = await database.read(generations.events_after, fence.generation, 0)
    assert (last.state_change.state, last.state_change.video.digest) == (Generation.SUCCEEDED, DIGEST)
    (delivery,) = await database.read(webhooks.page, "default", "", 10)
    (attempt,) = await database.read(lambda tx: tx.execute(select(attempts)).all())
    assert (delivery.generation, attempt.outcome) == (fence.generation, "succeeded")
    times = {row.end_time, last.event_time.ToMicroseconds(), delivery.create_time, attempt.end_time}
    assert len(times) == 1  # the time of a transaction is the same throughout
    (day,) = await database.read(lambda tx: tx.execute(select(usage)).all())
    assert (day.generations, day.succeeded, day.videos, day.video_bytes) == (1, 1, 1, 3)
    assert day.gpu_seconds == (row.end_time - attempt.start_time) / 1_000_000
    states = await database.read(lambda tx: {each.key: each.state for each in tx.execute(select(objects)).all()})
    assert states == {key: "live", recipe_key(key): "live"}
