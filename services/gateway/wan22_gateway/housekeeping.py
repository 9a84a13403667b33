"""What can wait: letting go of what is kept no longer, deleting garbage, forgetting request ids and dead workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from wan22.errors import Unavailable
from wan22_gateway.results import Results
from wan22_gateway.retention import Retention
from wan22_gateway.store import generations, media, objects, pools, previews, turns, webhooks
from wan22_gateway.store.database import Database

log = logging.getLogger(__name__)
INTERVAL_SECONDS = 60.0
DEAD_WORKER_SECONDS = 600.0
"""How long a silent worker stays in sight, so that an operator can see which one it was."""


async def keep_house(database: Database, results: Results, retention: Retention) -> None:
    """Works for ever: once a minute, and at once after a deletion. Several processes may do the same work twice."""
    with database.listen("garbage") as wake, database.listen("deleted") as deleted:
        deleted.set()  # what an earlier process deleted and did not come to erase
        while True:
            wake.clear()
            await _all(database, generations.expire_videos)
            if retention.generation is not None:
                await _all(database, generations.remove_old, retention.generation)
            if retention.media is not None:
                await _all(database, media.forget_unused, retention.media)
            await database.write(generations.forget_requests)
            await database.write(previews.sweep)
            await database.write(turns.forget_idle)
            await database.write(webhooks.forget_old)
            await database.write(pools.forget_dead, DEAD_WORKER_SECONDS)
            await database.write(objects.abandon_stale)
            await _collect(database, results)
            if deleted.is_set():
                deleted.clear()
                if not await database.erase():
                    deleted.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_SECONDS):
                    await wake.wait()


async def _all(database: Database, part: Callable[..., int], *args: int) -> None:
    """Runs a part that does a batch at a time until nothing is left for it."""
    while await database.write(part, *args):
        pass


async def _collect(database: Database, results: Results) -> None:
    """Deletes what nothing refers to; while the result store is away, that waits for the next round."""
    for key in await database.read(objects.garbage):
        try:
            await results.delete(key)
        except Unavailable as error:
            log.warning("Garbage is deleted later: %s", error.message)
            return
        await database.write(objects.deleted, key)
        log.info("Deleted %s.", key)
