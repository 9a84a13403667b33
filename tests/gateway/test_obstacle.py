"""What a pool's operator says of workers that cannot come, told to those who wait for one."""

from __future__ import annotations

from wan22_gateway import demand, generation_messages
from wan22_gateway.store import generations, pools
from wan22_gateway.store.database import Database, Transaction

from . import rows

OBSTACLE = "no GPU is free: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu."


async def test_a_generation_without_a_worker_says_what_keeps_one_from_coming(database: Database) -> None:
    await database.write(rows.add_pool)
    generation = await database.write(rows.add_generation)

    def waiting_for(tx: Transaction) -> str:
        return generation_messages.waiting_for(tx, generations.get(tx, "default", generation))

    assert await database.read(waiting_for) == f"a worker: none of {rows.POOL} answers yet"
    await database.write(lambda tx: rows.add_pool(tx, obstacle=OBSTACLE))
    assert await database.read(waiting_for) == f"a worker: {OBSTACLE}"
    await database.write(rows.add_worker)
    assert await database.read(waiting_for) == "its turn"
    told = await database.read(lambda tx: demand.pool_message(tx, pools.get(tx, rows.POOL), complete=True))
    assert told.obstacle == OBSTACLE
    await database.write(rows.add_pool)
    told = await database.read(lambda tx: demand.pool_message(tx, pools.get(tx, rows.POOL), complete=True))
    assert told.obstacle == ""
