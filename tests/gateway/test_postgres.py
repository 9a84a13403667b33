"""Several gateways on one PostgreSQL: what one of them decides, the others know."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from psycopg.errors import IdleInTransactionSessionTimeout
from sqlalchemy import func, select, text, update

from wan22.errors import AlreadyExists, ResourceExhausted
from wan22.v1 import generation_pb2
from wan22_gateway import lifecycle
from wan22_gateway.lifecycle import StoredVideo
from wan22_gateway.store import claims, generations, objects, tenants
from wan22_gateway.store.claims import Claim
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.opening import open_store
from wan22_gateway.store.postgres_connections import IDLE_SECONDS, WRITING, Connections
from wan22_gateway.store.schema import events
from wan22_gateway.store.schema import generations as generation_table

from . import rows

LEASE, RESUME_WAIT = 15.0, 60.0


@pytest.fixture
def url(postgres_store: str) -> str:
    return postgres_store


@pytest.fixture
async def replicas(url: str) -> AsyncIterator[list[Database]]:
    opened = [await open_store(url, None) for _ in range(3)]
    yield opened
    for replica in opened:
        await replica.close()


def prepare(tx: Transaction, workers: int = 1) -> None:
    rows.add_pool(tx)
    for number in range(workers):
        rows.add_worker(tx, f"workers/w{number}")


def claim(tx: Transaction, owner: str = "owner") -> Claim | None:
    return claims.claim_next(tx, owner, LEASE, RESUME_WAIT)


def unchanged(_: int, *, changed: bool) -> bool:
    return not changed


def count(tx: Transaction) -> int:
    return int(tx.execute(select(func.count()).select_from(generation_table)).scalar_one())


async def test_a_commit_at_one_wakes_who_listens_at_another_and_nobody_else(replicas: list[Database]) -> None:
    first, second, _ = replicas
    with second.listen("mine") as mine, second.listen("other") as other:
        await first.write(lambda tx: tx.notify("mine"))
        async with asyncio.timeout(60):
            await mine.wait()
        assert not other.is_set()


async def test_more_topics_than_one_notification_holds_all_arrive(replicas: list[Database]) -> None:
    first, second, _ = replicas
    topics = [f"generation/{number:036d}" for number in range(1000)]
    with second.listen(topics[0]) as one, second.listen(topics[-1]) as last:
        await first.write(lambda tx: tx.topics.update(topics))
        async with asyncio.timeout(60):
            await one.wait()
            await last.wait()


async def test_each_generation_and_each_worker_is_claimed_once_by_three_that_claim_at_once(
    replicas: list[Database],
) -> None:
    first = replicas[0]
    await first.write(lambda tx: prepare(tx, 20))
    made = await first.write(lambda tx: [rows.add_generation(tx) for _ in range(30)])
    taken = await asyncio.gather(
        *(replica.write(claim, f"owner{number}") for number, replica in enumerate(replicas) for _ in range(20))
    )
    got = [one for one in taken if one is not None]
    assert [one.fence.generation for one in sorted(got, key=lambda one: made.index(one.fence.generation))] == made[:20]
    assert Counter(one.worker for one in got) == Counter(f"workers/w{number}" for number in range(20))
    owners = await first.read(
        lambda tx: tx.execute(select(generation_table.c.owner).where(generation_table.c.owner.is_not(None))).all()
    )
    assert len(owners) == 20


async def test_a_tenant_runs_no_more_than_allowed_though_three_claim_at_once(replicas: list[Database]) -> None:
    first = replicas[0]
    await first.write(lambda tx: prepare(tx, 10))
    await first.write(lambda tx: rows.set_limits(tx, "default", max_running=3))
    await first.write(lambda tx: [rows.add_generation(tx) for _ in range(10)])
    taken = await asyncio.gather(*(replica.write(claim) for replica in replicas for _ in range(4)))
    assert len([one for one in taken if one is not None]) == 3


async def test_a_quota_holds_though_all_ask_at_once(replicas: list[Database]) -> None:
    first = replicas[0]
    await first.write(prepare)
    await first.write(lambda tx: rows.set_limits(tx, "default", max_queued=7))

    def create(tx: Transaction) -> str:
        tenants.Quotas(tx).take("default", 1, 10.0)
        return rows.add_generation(tx)

    answers = await asyncio.gather(
        *(replica.write(create) for _ in range(10) for replica in replicas), return_exceptions=True
    )
    assert Counter(type(answer) for answer in answers) == {str: 7, ResourceExhausted: 23}
    assert await first.read(count) == 7


async def test_a_request_id_makes_one_generation_though_all_ask_at_once(replicas: list[Database]) -> None:
    await replicas[0].write(prepare)

    def create(tx: Transaction, digest: str) -> str:
        known = generations.find_request(tx, "default", "mine", digest)
        return known or rows.add_generation(tx, request_id="mine")

    made = await asyncio.gather(*(replica.write(create, "d") for _ in range(5) for replica in replicas))
    assert len(set(made)) == 1
    with pytest.raises(AlreadyExists):
        await replicas[1].write(create, "other")


async def test_an_overtaken_owner_writes_nothing_and_events_have_neither_gaps_nor_doubles(
    replicas: list[Database],
) -> None:
    first, second, third = replicas
    await first.write(prepare)
    generation = await first.write(rows.add_generation)
    old = await first.write(claim, "first")
    assert old is not None
    assert await first.write(lifecycle.start, old.fence, old.worker, "uid")
    progress = generation_pb2.Progress(stage=generation_pb2.Progress.DENOISING, step=1, num_steps=9)

    async def tell(replica: Database, fence: lifecycle.Fence) -> list[bool]:
        return [await replica.write_own(lifecycle.progress, fence, progress) for _ in range(30)]

    def lapse(tx: Transaction) -> None:
        tx.execute(update(generation_table).values(lease_expire_time=tx.now - 1))

    async def take_over() -> Claim:
        await third.write(lapse)
        while not (taken := await second.write(claims.take_over, "second", LEASE)):
            pass  # its owner was writing at that moment
        return taken[0]

    told, new = await asyncio.gather(tell(first, old.fence), take_over())
    assert told == sorted(told, reverse=True)  # once refused, always refused
    assert not await first.write_own(lifecycle.progress, old.fence, progress)
    assert not await first.write(lifecycle.succeed, old.fence, StoredVideo("old", 1, "d"))
    assert not await first.write(lifecycle.cancelled, old.fence)
    assert await first.write_own(claims.renew, "first", [old.fence], LEASE) == set()
    assert all(await tell(second, new.fence))
    assert await second.write(lifecycle.succeed, new.fence, StoredVideo("new", 1, "d"))
    row = await third.read(generations.get, "default", generation)
    assert (row.state, row.video_key, row.owner_epoch) == ("SUCCEEDED", "new", old.fence.owner_epoch + 1)
    numbers = await third.read(
        lambda tx: tx.execute(select(events.c.sequence).order_by(events.c.sequence)).scalars().all()
    )
    assert numbers == list(range(1, row.last_sequence + 1))
    assert row.last_sequence == 1 + 2 + sum(told) + 30 + 1


async def test_what_is_being_written_about_is_neither_claimed_nor_taken_over_and_nobody_waits(
    replicas: list[Database], url: str
) -> None:
    first, second, _ = replicas
    await first.write(lambda tx: prepare(tx, 2))
    locked, free = [await first.write(rows.add_generation) for _ in range(2)]
    with Connections(url).connect() as connection:
        connection.execute("SELECT id FROM generations WHERE id = %s FOR UPDATE", [locked])
        async with asyncio.timeout(6):
            taken = await second.write(claim)
        assert taken is not None
        assert taken.fence.generation == free
        connection.rollback()
        taken = await second.write(claim)
        assert taken is not None
        assert taken.fence.generation == locked
        await first.write(lambda tx: tx.execute(update(generation_table).values(lease_expire_time=tx.now - 1)).rowcount)
        connection.execute("SELECT id FROM generations WHERE id = %s FOR UPDATE", [locked])
        async with asyncio.timeout(6):
            assert [one.fence.generation for one in await first.write(claims.take_over, "x", LEASE)] == [free]
    assert [one.fence.generation for one in await first.write(claims.take_over, "x", LEASE)] == [locked]


async def test_who_stops_in_the_middle_of_a_decision_holds_the_others_up_for_seconds_only_and_no_lease_at_all(
    replicas: list[Database], url: str
) -> None:
    first = replicas[0]
    await first.write(prepare)
    await first.write(rows.add_generation)
    owned = await first.write(claim)
    assert owned is not None
    stopped = Connections(url).connect(WRITING)
    stopped.execute("SELECT pg_advisory_xact_lock(hashtext('wan22 store'))")
    began = asyncio.get_running_loop().time()
    waiting = asyncio.create_task(first.write(rows.add_generation))
    async with asyncio.timeout(6):
        assert await first.write_own(claims.renew, "owner", [owned.fence], LEASE) == {owned.fence}
    assert not waiting.done()
    await waiting
    assert asyncio.get_running_loop().time() - began < IDLE_SECONDS + 4
    with pytest.raises(IdleInTransactionSessionTimeout):
        stopped.execute("SELECT 1")
    stopped.close()
    assert await first.read(count) == 2


async def test_what_reads_remember_is_never_older_than_a_write_that_another_replica_has_answered(
    replicas: list[Database],
) -> None:
    first, second, third = replicas
    await first.write(prepare)

    def remembered(tx: Transaction) -> int:
        return tx.remember("count", "queue", lambda: count(tx), unchanged)

    for number in range(1, 8):
        await first.write(rows.add_generation)
        assert [await reader.read(remembered) for reader in (second, third)] == [number, number]


async def test_what_reads_remember_is_made_anew_only_after_a_commit_to_its_topic(replicas: list[Database]) -> None:
    first, second, _ = replicas
    made = itertools.count(1)

    def remembered(tx: Transaction) -> int:
        return tx.remember("x", "queue", lambda: next(made), unchanged)

    await first.write(prepare)
    assert await second.read(remembered) == 1
    await first.write(objects.begin, "videos/x")  # of another topic
    assert await second.read(remembered) == 1
    await first.write(rows.add_generation)
    assert await second.read(remembered) == 2
    assert await second.read(remembered) == 2


async def test_a_commit_that_was_begun_before_a_read_and_ended_after_it_is_news_to_the_next_one(
    replicas: list[Database], url: str
) -> None:
    def remembered(tx: Transaction) -> int:
        return tx.remember("count", "queue", lambda: count(tx), unchanged)

    await replicas[0].write(prepare)
    begun, go_on = threading.Event(), threading.Event()

    def slowly(tx: Transaction) -> None:
        rows.add_generation(tx)
        begun.set()
        go_on.wait(10)

    writing = asyncio.create_task(replicas[0].write(slowly))
    await asyncio.to_thread(begun.wait, 10)
    assert await replicas[1].read(remembered) == 0
    go_on.set()
    await writing
    assert await replicas[1].read(remembered) == 1


async def test_the_time_is_the_servers(replicas: list[Database]) -> None:
    def both(tx: Transaction) -> tuple[int, int]:
        server = tx.execute(text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")).scalar_one()
        return tx.now, server

    for reading in (replicas[0].read(both), replicas[0].write(both)):
        ours, server = await reading
        assert abs(ours - server) < 1_000_000
