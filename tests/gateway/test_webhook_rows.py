from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import update

from wan22.errors import FailedPrecondition, InternalError, NotFound, Reason
from wan22_gateway import lifecycle
from wan22_gateway.store import generations, webhooks
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.schema import deliveries
from wan22_gateway.store.webhooks import BACKOFF, Try

from . import rows

URL = "https://example.com/hook"
FIRST = "whsec_MQ=="


def apply(tx: Transaction, secret: str = FIRST, *, rotate: bool = False, prompt: bool = False) -> bool:
    return webhooks.apply(tx, "default", url=URL, include_prompt=prompt, secret=secret, rotate=rotate)[1]


def end(tx: Transaction, state: str = "cancel") -> str:
    """A generation that has just ended."""
    generation = rows.add_generation(tx)
    if state == "cancel":
        lifecycle.request_cancel(tx, generation)
    else:
        lifecycle.fail_waiting(tx, generation, InternalError("It broke.", reason=Reason.NOT_FINITE))
    return generation


def claim(tx: Transaction, room: int = 10) -> list[Try]:
    return webhooks.claim(tx, room, 60.0)


async def one(database: Database) -> Any:
    (row,) = await database.read(webhooks.page, "default", "", 10)
    return row


async def test_a_generation_and_its_delivery_end_in_one_transaction(database: Database) -> None:
    await database.write(apply)

    def broken(tx: Transaction) -> None:
        end(tx)
        raise ValueError("undone")

    with pytest.raises(ValueError, match="undone"):
        await database.write(broken)
    assert await database.read(webhooks.page, "default", "", 10) == []
    generation = await database.write(end, "fail")
    row = await one(database)
    assert (row.generation, row.type, row.url, row.state) == (generation, "generation.failed", URL, "PENDING")
    body = json.loads(row.payload)
    assert body["type"] == "generation.failed"
    assert body["data"]["name"] == f"generations/{generation}"
    assert body["data"]["error"] == {"code": "INTERNAL", "reason": "NOT_FINITE", "message": "It broke."}
    assert "prompt" not in body["data"]


async def test_a_deleted_generations_texts_are_in_no_delivery(database: Database) -> None:
    await database.write(lambda tx: apply(tx, prompt=True))
    generation = await database.write(end)
    assert {"prompt", "labels"} <= json.loads((await one(database)).payload)["data"].keys()
    await database.write(lambda tx: generations.remove(tx, generations.get(tx, "default", generation)))
    row = await one(database)
    data = json.loads(row.payload)["data"]
    assert (row.state, data["name"], data["state"]) == ("PENDING", f"generations/{generation}", "CANCELLED")
    assert not {"prompt", "negative_prompt", "labels"} & data.keys()


async def test_a_tenant_without_a_webhook_is_told_nothing_and_another_ones_is_not_used(database: Database) -> None:
    await database.write(end)
    await database.write(apply)
    await database.write(lambda tx: lifecycle.request_cancel(tx, rows.add_generation(tx, tenant="other")))
    assert await database.read(webhooks.page, "default", "", 10) == []
    assert await database.read(webhooks.page, "other", "", 10) == []


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_deliveries_of_one_moment_come_once_each_page_by_page(database: Database, size: int) -> None:
    await database.write(apply)
    made = [await database.write(end) for _ in range(7)]
    times = {generation: number // 3 for number, generation in enumerate(made)}

    def date(tx: Transaction) -> None:
        for generation, time in times.items():
            tx.execute(update(deliveries).where(deliveries.c.generation == generation).values(create_time=time))

    await database.write(date)
    seen, after = list[Any](), None
    while page := await database.read(webhooks.page, "default", "PENDING", size, after):
        seen += page
        after = webhooks.place(page[-1])
    assert sorted(row.generation for row in seen) == sorted(made)
    assert [row.create_time for row in seen] == sorted(times.values(), reverse=True)


async def test_prompts_are_sent_only_where_that_is_wanted(database: Database) -> None:
    await database.write(lambda tx: apply(tx, prompt=True))
    await database.write(end)
    assert json.loads((await one(database)).payload)["data"]["prompt"] == ""


async def test_one_process_at_a_time_tries_a_delivery_and_a_lapsed_lease_is_taken_over(database: Database) -> None:
    await database.write(apply)
    await database.write(end)
    (first,) = await database.write(claim)
    assert await database.write(claim) == []
    await database.write(lambda tx: tx.execute(update(deliveries).values(lease_expire_time=tx.now - 1)))
    (second,) = await database.write(claim)
    assert (second.id, second.number, second.payload) == (first.id, 2, first.payload)
    await database.write(webhooks.taken, first)  # too late: it is the second's
    assert (await one(database)).state == "PENDING"
    await database.write(webhooks.taken, second)
    assert (await one(database)).state == "DELIVERED"


async def test_tries_grow_apart_over_hours_and_then_it_is_dead_until_it_is_redelivered(database: Database) -> None:
    await database.write(apply)
    await database.write(end)
    pauses = []
    for _ in range(len(BACKOFF) + 1):
        (taken,) = await database.write(claim)

        def fail(tx: Transaction, taken: Try = taken) -> int:
            webhooks.refused(tx, taken, "The receiver answered 500.", retry_after=None, for_good=False)
            return tx.now

        now = await database.write(fail)
        row = await one(database)
        if row.state == "PENDING":
            pauses.append(round((row.next_time - now) / 1_000_000))
        await database.write(lambda tx: tx.execute(update(deliveries).values(next_time=tx.now)))
    assert tuple(pauses) == BACKOFF
    assert sum(pauses) > 12 * 3600
    row = await one(database)
    assert (row.state, row.last_error, row.attempt_count) == ("DEAD", "The receiver answered 500.", len(BACKOFF) + 1)
    assert await database.write(claim) == []
    assert [dead.id for dead in await database.read(webhooks.page, "default", "DEAD", 10)] == [row.id]
    with pytest.raises(NotFound):
        await database.write(webhooks.redeliver, "other", row.id)
    await database.write(webhooks.redeliver, "default", row.id)
    (again,) = await database.write(claim)
    assert (again.id, again.payload) == (row.id, row.payload)


async def test_retry_after_is_honoured_and_gone_is_final(database: Database) -> None:
    await database.write(apply)
    await database.write(end)
    (taken,) = await database.write(claim)
    await database.write(lambda tx: webhooks.refused(tx, taken, "busy", retry_after=900.0, for_good=False))
    row = await one(database)
    assert row.next_time - row.create_time >= 900 * 1_000_000
    await database.write(lambda tx: tx.execute(update(deliveries).values(next_time=tx.now)))
    (taken,) = await database.write(claim)
    await database.write(lambda tx: webhooks.refused(tx, taken, "gone", retry_after=None, for_good=True))
    assert (await one(database)).state == "DEAD"


async def test_a_slow_receiver_takes_a_tenants_share_of_tries_alone(database: Database) -> None:
    await database.write(apply)
    for _ in range(9):
        await database.write(end)
    assert len(await database.write(claim)) == webhooks.PER_TENANT
    assert await database.write(claim) == []


async def test_a_replaced_secret_signs_beside_the_new_one(database: Database) -> None:
    assert await database.write(apply, "whsec_MQ==")
    assert not await database.write(apply, "whsec_Mg==")
    assert await database.write(lambda tx: apply(tx, "whsec_Mw==", rotate=True))
    await database.write(end)
    (taken,) = await database.write(claim)
    assert taken.secrets == ("whsec_Mw==", "whsec_MQ==")


async def test_without_a_webhook_there_is_nothing_to_sign_by(database: Database) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        await database.read(webhooks.check_secret, "default")
    assert caught.value.reason is Reason.NO_WEBHOOK
    await database.write(apply)
    await database.read(webhooks.check_secret, "default")
    await database.write(end)
    await database.write(webhooks.remove, "default")
    assert (await one(database)).state == "DEAD"
    assert await database.write(claim) == []


async def test_deliveries_are_forgotten_long_after_they_are_over(database: Database) -> None:
    await database.write(apply)
    await database.write(end)
    (taken,) = await database.write(claim)
    await database.write(webhooks.taken, taken)
    await database.write(webhooks.forget_old)
    assert (await one(database)).state == "DELIVERED"
    week = 8 * 24 * 3600 * 1_000_000
    await database.write(lambda tx: tx.execute(update(deliveries).values(end_time=tx.now - week)))
    await database.write(webhooks.forget_old)
    assert await database.read(webhooks.page, "default", "", 10) == []
