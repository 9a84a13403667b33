"""Rows that are inserted together are what single inserts would have made of them."""

from __future__ import annotations

from sqlalchemy import insert, select

from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.schema import generations

GIVEN = {
    "tenant": "default",
    "state": "QUEUED",
    "variant": "t2v-a14b-tiny",
    "pool": "pools/a.b",
    "model_version": "models/m/versions/sha256:0",
    "parameters": b"\x00\xff",
    "labels": {"project": "ü", "quote": "it's 100 %"},
    "predicted_seconds": 1,
    "create_time": 7,
    "deadline": None,
}


async def test_many_rows_equal_those_inserted_one_by_one(database: Database) -> None:
    def write(tx: Transaction) -> None:
        tx.insert_many(generations, [{**GIVEN, "id": name} for name in ("a", "b")])
        tx.execute(insert(generations).values(**GIVEN, id="c"))

    await database.write(write)
    columns = [column for column in generations.c if column.name not in {"id", "position"}]
    rows = await database.read(lambda tx: tx.execute(select(*columns).order_by(generations.c.id)).all())
    assert len(rows) == 3
    assert rows[0] == rows[1] == rows[2]
    assert (rows[0].labels, rows[0].parameters, rows[0].priority) == (GIVEN["labels"], b"\x00\xff", 2)


async def test_no_rows_are_no_statement(database: Database) -> None:
    await database.write(lambda tx: tx.insert_many(generations, []))
    assert await database.read(lambda tx: tx.execute(select(generations.c.id)).all()) == []
