"""What can wait: deleting garbage objects, freeing old request ids, forgetting workers that are long gone."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from wan22_gateway.results import Results
from wan22_gateway.store import generations, objects, pools, turns
from wan22_gateway.store.database import Database

log = logging.getLogger(__name__)
INTERVAL_SECONDS = 60.0
DEAD_WORKER_SECONDS = 600.0
"""How long a silent worker stays in sight, so that an operator can see which one it was."""


async def keep_house(database: Database, results: Results) -> None:
    """Works for ever: once a minute, and at once after a deletion."""
    await database.write(objects.abandon_pending)
    with database.listen("garbage") as wake:
        while True:
            wake.clear()
            for key in await database.read(objects.garbage):
                await results.delete(key)
                await database.write(objects.deleted, key)
                log.info("Deleted %s.", key)
            await database.write(generations.forget_requests)
            await database.write(turns.forget_idle)
            await database.write(pools.forget_dead, DEAD_WORKER_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_SECONDS):
                    await wake.wait()
