"""What a create answers is what a read would answer, though its row is not read again."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from wan22.v1.generation_pb2 import Generation, Parameters
from wan22_gateway import lifecycle
from wan22_gateway.generation_messages import generation_message
from wan22_gateway.intake import Intake
from wan22_gateway.store import generations
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.generations import NewGeneration

from . import rows


def new(**fields: Any) -> NewGeneration:
    given: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "tenant": "default",
        "request_id": str(uuid.uuid4()),
        "request_digest": "d",
        "variant": "t2v-a14b-tiny",
        "pool": rows.POOL,
        "model_version": rows.VERSION,
        "parameters": Parameters(prompt="a red circle", seed=7).SerializeToString(),
        "labels": {},
        "cut_texts": {},
        "siblings": [],
        "predicted_seconds": 12.5,
    }
    return NewGeneration(**given | fields)


def shown(tx: Transaction, name: str) -> Generation:
    return generation_message(tx, generations.get(tx, "default", name.removeprefix("generations/")))


async def test_answers_are_what_reads_say(database: Database) -> None:
    await database.write(rows.add_pool)
    siblings = [str(uuid.uuid4()) for _ in range(2)]
    orders = [
        [new()],
        [new(labels={"project": "p", "a": ""}, priority=3, cut_texts={"prompt": 600})],
        [new(deadline=4_000_000_000_000_000, keep_for=86_400_000_000, request_id="")],
        [new(id=siblings[0], siblings=siblings), new(id=siblings[1], siblings=siblings, request_id="")],
    ]
    async with Intake(database, 100) as intake:
        answers = await asyncio.gather(*(intake.add(order, reusing=False) for order in orders))
    for order, answer in zip(orders, answers, strict=True):
        assert answer.name == f"generations/{order[0].id}"
        again = await database.read(shown, answer.name)
        # an urgent one of another call may have come before it meanwhile
        answer.queue_position = again.queue_position
        assert answer == again


async def test_an_answer_predicts_start_and_end(database: Database) -> None:
    await database.write(rows.add_pool)
    await database.write(rows.add_worker)
    async with Intake(database, 100) as intake:
        first = await intake.add([new()], reusing=False)
        second = await intake.add([new()], reusing=False)
    assert [first.queue_position, second.queue_position] == [1, 2]
    for answer in (first, second):
        took = answer.predicted_end_time.ToMicroseconds() - answer.predicted_start_time.ToMicroseconds()
        assert took == 12_500_000
    assert second.predicted_start_time.ToMicroseconds() >= first.predicted_end_time.ToMicroseconds()


async def test_a_repeated_request_answers_by_the_first_ones_generation(database: Database) -> None:
    await database.write(rows.add_pool)
    first = new()
    again = new(request_id=first.request_id)
    async with Intake(database, 100) as intake:
        answers = await asyncio.gather(*(intake.add([order], reusing=False) for order in (first, again)))
    assert {answer.name for answer in answers} == {f"generations/{first.id}"}


async def test_what_has_happened_since_is_read(database: Database) -> None:
    await database.write(rows.add_pool)
    orders = {order.id: order for order in (new(), new())}
    await database.write(generations.insert, list(orders.values()))
    waiting, cancelled = orders
    await database.write(lifecycle.request_cancel, cancelled)
    found = await database.read(generations.untouched, orders)
    assert [row.id for row in found] == [waiting]
    whole = await database.read(generations.get, "default", waiting)
    assert vars(found[0]) == dict(whole._mapping)
