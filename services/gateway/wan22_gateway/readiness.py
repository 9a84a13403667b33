"""Whether the gateway serves: it is ready while its store answers."""

from __future__ import annotations

import asyncio
import logging

from wan22.errors import Wan22Error
from wan22.server import Server
from wan22_gateway.store.database import Database

log = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
"""How often the store is asked."""
ANSWER_SECONDS = 5.0
"""How long an answer may take: far beyond a busy store's, short enough for a load balancer."""
STORE_AWAY = "The gateway's store does not answer; its log says why."
"""What everybody is told: the port is open, and a database's own words name addresses."""


class Readiness:
    """Keeps what a server says of `ready` true while `run` runs; `reason` says why it is not."""

    def __init__(self, database: Database, server: Server) -> None:
        self._database = database
        self._server = server
        self.reason = "The gateway starts or stops."

    def begin(self) -> None:
        """Takes note that everything is up; the store has answered on the way."""
        self._set("")

    async def run(self) -> None:
        """Looks for ever. One question is under way at a time: what hangs is not asked again meanwhile."""
        while True:
            asked = asyncio.create_task(self._database.ask())
            try:
                await asyncio.wait({asked}, timeout=ANSWER_SECONDS)
                if not asked.done():
                    self._set(f"it has not answered for {ANSWER_SECONDS:g} s")
                self._set(await _trouble(asked))
            finally:
                asked.cancel()
            await asyncio.sleep(LOOK_SECONDS)

    def _set(self, trouble: str) -> None:
        ready = not trouble
        if ready is not self._server.ready:
            if ready:
                log.info("Ready: the store answers.")
            else:
                log.warning("Not ready, the store does not answer: %s", trouble)
        self.reason = STORE_AWAY if trouble else ""
        self._server.set_ready(ready)


async def _trouble(asked: asyncio.Task[None]) -> str:
    try:
        await asked
    except Wan22Error as error:
        return error.message
    return ""
