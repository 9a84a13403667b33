from __future__ import annotations

import pytest
from sqlalchemy import select, text, update

from wan22.errors import Reason, ResourceExhausted
from wan22.status import from_status
from wan22.v1.generation_pb2 import Generation, ListUsageRequest
from wan22_gateway import lifecycle, outcome
from wan22_gateway.demand import pool_message
from wan22_gateway.generation_messages import generation_message
from wan22_gateway.lifecycle import StoredVideo
from wan22_gateway.scheduling.shares import Share
from wan22_gateway.store import claims, generations, pools, tenants, turns
from wan22_gateway.store import usage as usage_rows
from wan22_gateway.store.claims import Claim
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.schema import attempts, usage
from wan22_gateway.store.schema import generations as generation_table
from wan22_gateway.store.sqlite import SqliteDatabase
from wan22_gateway.store.usage import DAY
from wan22_gateway.usage_messages import usage_message

from . import rows

LOW, NORMAL, HIGH = Generation.LOW, Generation.NORMAL, Generation.HIGH


def take(tx: Transaction, tenant: str, count: int, predicted_seconds: float) -> None:
    tenants.Quotas(tx).take(tenant, count, predicted_seconds)


def claim(tx: Transaction) -> Claim | None:
    return claims.claim_next(tx, "owner", 15.0, 60.0)


def prepare(tx: Transaction) -> None:
    rows.add_pool(tx)
    rows.add_worker(tx)


def make_it_take_ten_seconds(tx: Transaction, generation: str) -> None:
    took = update(attempts).where(attempts.c.generation == generation)
    tx.execute(took.values(start_time=tx.now - 10_000_000))


def add_for(tx: Transaction, tenant: str) -> str:
    return rows.add_generation(tx, tenant=tenant)


async def served(database: Database, count: int) -> list[str]:
    """Lets one worker do so many generations; returns their ids in that order."""
    done = []
    for _ in range(count):
        taken = await database.write(claim)
        assert taken is not None
        await database.write(lifecycle.start, taken.fence, taken.worker, "uid")
        await database.write(make_it_take_ten_seconds, taken.fence.generation)
        video = StoredVideo(taken.fence.generation, 1, "sha256:" + "0" * 64)
        assert await database.write(lifecycle.succeed, taken.fence, video)
        done.append(taken.fence.generation)
    return done


async def message(database: Database, generation: str, tenant: str = "default") -> Generation:
    return await database.read(lambda tx: generation_message(tx, generations.get(tx, tenant, generation)))


async def test_tenants_take_turns_by_weight_and_positions_foretell_it(database: Database) -> None:
    await database.write(prepare)
    await database.write(lambda tx: rows.set_limits(tx, "big", weight=1.9))
    queued = {}
    for tenant, count in (("small", 6), ("big", 6)):
        for _ in range(count):
            queued[await database.write(add_for, tenant)] = tenant
    foretold = {}
    for generation, tenant in queued.items():
        shown = await message(database, generation, tenant)
        foretold[shown.queue_position] = generation
    order = await served(database, 12)
    assert order == [foretold[position] for position in range(1, 13)]
    first_nine = [queued[generation] for generation in order[:9]]
    assert (first_nine.count("big"), first_nine.count("small")) == (6, 3)


async def test_a_tenants_urgent_generation_goes_first_and_its_starts_are_predicted(database: Database) -> None:
    await database.write(prepare)
    normal = [await database.write(rows.add_generation) for _ in range(2)]
    urgent = await database.write(lambda tx: rows.add_generation(tx, priority=HIGH))
    low = await database.write(lambda tx: rows.add_generation(tx, priority=LOW))
    shown = [await message(database, generation) for generation in (urgent, *normal, low)]
    assert sorted(generation.queue_position for generation in shown) == [1, 2, 3, 4]
    assert (shown[0].queue_position, shown[0].priority) == (1, HIGH)
    starts = sorted(generation.predicted_start_time.ToMicroseconds() for generation in shown)
    assert [round((start - starts[0]) / 1e6) for start in starts] == [0, 10, 20, 30]
    assert shown[0].predicted_end_time.ToMicroseconds() - starts[0] == 10_000_000
    assert (await served(database, 1)) == [urgent]


async def test_what_was_used_is_charged_in_the_end_and_added_to_the_days_usage(database: Database) -> None:
    await database.write(prepare)
    await database.write(lambda tx: rows.add_generation(tx, predicted=50.0))
    await served(database, 1)
    share = await database.read(turns.share_of, rows.POOL, "default")
    assert share.tag == pytest.approx(10.0, abs=1.0)  # the 10 s that it took, not the 50 s foretold
    (day,) = await database.read(lambda tx: tx.execute(select(usage)).all())
    assert (day.tenant, day.generations, day.succeeded) == ("default", 1, 1)
    assert day.gpu_seconds == pytest.approx(10.0, abs=1.0)
    assert (await database.read(tenants.present, "default")).gpu_seconds_today == day.gpu_seconds
    await database.write(turns.forget_idle)
    assert (await database.read(turns.share_of, rows.POOL, "default")).tag == share.tag  # it is ahead of its time


async def test_a_generation_is_charged_once_although_its_worker_was_lost(database: Database) -> None:
    await database.write(prepare)
    await database.write(rows.add_generation)
    taken = await database.write(claim)
    assert taken is not None
    await database.write(lifecycle.start, taken.fence, taken.worker, "uid")
    await database.write(lifecycle.requeue, taken.fence, "lost")
    assert await database.write(claim) is not None
    assert (await database.read(turns.share_of, rows.POOL, "default")).tag == 10.0


async def test_cancelling_what_waits_costs_nothing(database: Database) -> None:
    await database.write(prepare)
    for _ in range(3):
        await database.write(lifecycle.request_cancel, await database.write(rows.add_generation))
    assert await database.read(turns.share_of, rows.POOL, "default") == Share()


async def test_a_tenant_that_may_run_one_leaves_the_other_worker_and_says_why(database: Database) -> None:
    await database.write(prepare)
    await database.write(rows.add_worker, "workers/w2")
    await database.write(lambda tx: rows.set_limits(tx, "default", max_running=1))
    first = await database.write(rows.add_generation)
    second = await database.write(rows.add_generation)
    other = await database.write(lambda tx: rows.add_generation(tx, tenant="other"))
    taken = [await database.write(claim) for _ in range(3)]
    assert [t and t.fence.generation for t in taken] == [first, other, None]
    assert (await message(database, second)).waiting_for == "another generation of its tenant: 1 may run at once"


@pytest.mark.parametrize(("limit", "quota"), [({"max_queued": 2}, "queued"), ({"gpu_seconds_per_day": 25.0}, "day")])
async def test_a_quota_refuses_the_third(database: Database, limit: dict[str, float], quota: str) -> None:
    await database.write(prepare)
    await database.write(lambda tx: rows.set_limits(tx, "default", **limit))
    for _ in range(2):
        await database.write(take, "default", 1, 10.0)
        await database.write(rows.add_generation)
    with pytest.raises(ResourceExhausted) as caught:
        await database.write(take, "default", 1, 10.0)
    assert (caught.value.reason, caught.value.metadata) == (Reason.QUOTA_EXCEEDED, {"quota": quota})
    assert caught.value.retry_after is not None
    await database.write(take, "other", 1, 10.0)


async def test_a_days_quota_is_free_again_at_midnight(database: Database) -> None:
    await database.write(lambda tx: rows.set_limits(tx, "default", gpu_seconds_per_day=25.0))
    await database.write(lambda tx: usage_rows.add(tx, "default", "t2v-a14b", gpu_seconds=20.0))
    before = await database.read(lambda tx: tx.now)
    with pytest.raises(ResourceExhausted) as caught:
        await database.write(take, "default", 1, 10.0)
    after = await database.read(lambda tx: tx.now)
    assert caught.value.retry_after is not None
    asked = (before // DAY + 1) * DAY - round(caught.value.retry_after * 1_000_000)
    assert before - 1 <= asked <= after + 1  # to be asked again at midnight
    await database.write(lambda tx: tx.execute(update(usage).values(day=usage.c.day - 1)))  # as a day later
    await database.write(take, "default", 1, 10.0)
    assert (await database.read(tenants.present, "default")).gpu_seconds_today == 0.0
    days = (await database.read(usage_message, "default", ListUsageRequest(days=2))).usage
    assert [(day.gpu_seconds, day.day.ToMicroseconds() % DAY) for day in days] == [(20.0, 0)]
    assert (await database.read(usage_message, "default", ListUsageRequest(days=1))).usage == []


async def test_what_began_before_midnight_counts_for_the_day_on_which_it_ends(database: Database) -> None:
    await database.write(prepare)
    await database.write(rows.add_generation)
    await database.write(lambda tx: usage_rows.add(tx, "default", "t2v-a14b-tiny", gpu_seconds=5.0))
    await database.write(lambda tx: tx.execute(update(usage).values(day=usage.c.day - 1)))
    await served(database, 1)
    days = (await database.read(usage_message, "default", ListUsageRequest(days=2))).usage
    assert [round(day.gpu_seconds) for day in days] == [10, 5]
    assert (await database.read(tenants.present, "default")).gpu_seconds_today == days[0].gpu_seconds


async def test_a_deadline_that_cannot_be_made_any_more_fails_before_a_worker_is_given(database: Database) -> None:
    await database.write(prepare)
    late = await database.write(
        lambda tx: rows.add_generation(tx, deadline=tx.now + 9_000_000, start_by_time=tx.now - 1)
    )
    good = await database.write(
        lambda tx: rows.add_generation(tx, deadline=tx.now + 90_000_000, start_by_time=tx.now + 80_000_000)
    )
    demand = (await database.read(lambda tx: pool_message(tx, pools.get(tx, rows.POOL), complete=True))).demand
    assert demand.queued[0].HasField("start_by_time")
    taken = await database.write(claim)
    assert taken is not None
    assert taken.fence.generation == good
    failed = await message(database, late)
    assert failed.state == Generation.FAILED
    assert from_status(failed.error).reason is Reason.DEADLINE_MISSED
    assert "predicted to take 10 s" in failed.error.message


async def test_a_running_generation_is_stopped_at_its_deadline_and_its_worker_goes_on(database: Database) -> None:
    await database.write(prepare)
    late = await database.write(lambda tx: rows.add_generation(tx, deadline=tx.now + 1, start_by_time=tx.now + 10**9))
    taken = await database.write(claim)
    assert taken is not None
    await database.write(lifecycle.start, taken.fence, taken.worker, "uid")
    row = await database.read(outcome.row_of, taken.fence)
    assert row is not None
    assert await database.read(outcome.is_late, row)
    await database.write(outcome.stopped, taken)
    assert from_status((await message(database, late)).error).reason is Reason.DEADLINE_MISSED
    await database.write(rows.add_generation)
    assert await database.write(claim) is not None


async def test_a_queue_of_many_is_dispatched_from_its_indexes(database: Database) -> None:
    await database.write(prepare)
    await database.write(lambda tx: [rows.add_generation(tx, tenant=f"t{n % 7}") for n in range(200)])

    embedded = isinstance(database, SqliteDatabase)
    if not embedded:  # it chooses by what it knows of the rows: most of a tenant's have ended

        def end_most(tx: Transaction) -> None:
            tx.execute(update(generation_table).where(generation_table.c.position % 20 != 0).values(state="SUCCEEDED"))
            tx.execute(text("ANALYZE generations"))

        await database.write(end_most)

    def plan_of(tx: Transaction) -> str:
        query = (
            select(generation_table.c.position)
            .where(
                generation_table.c.state == "QUEUED",
                generation_table.c.pool == rows.POOL,
                generation_table.c.tenant == "t1",
                generation_table.c.priority == 2,
                generation_table.c.claimed_worker.is_(None),
            )
            .order_by("position")
        )
        compiled = str(query.compile(compile_kwargs={"literal_binds": True}))
        if not embedded:
            tx.execute(text("SET LOCAL enable_seqscan = off"))  # which is better for so few rows
        explain = "EXPLAIN QUERY PLAN " if embedded else "EXPLAIN "
        return " ".join(str(row) for row in tx.execute(text(explain + compiled)))

    explained = await database.read(plan_of)
    assert "generations_by_turn" in explained
    assert "TEMP B-TREE" not in explained
    assert "Sort" not in explained
