"""Delivers what has been announced: each delivery is tried by one process at a time, until it is taken or DEAD."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from wan22.errors import Wan22Error
from wan22_gateway.store import webhooks
from wan22_gateway.store.database import Database
from wan22_gateway.store.webhooks import Try
from wan22_gateway.webhooks.poster import Answer, Poster
from wan22_gateway.webhooks.signature import signed_headers

log = logging.getLogger(__name__)
MOST = 16
"""Tries at once."""
TRY_SECONDS = 15.0
"""How long a receiver may take; it should take note and work later."""
LEASE_SECONDS = 60.0
"""After which another process tries again what one that died had begun."""
LOOK_SECONDS = 1.0
"""How late a try that waits for its time may be."""
GONE = 410


class WebhookDispatcher:
    """Runs beside those of other replicas, on the same store."""

    def __init__(self, database: Database, poster: Poster) -> None:
        self._database = database
        self._poster = poster
        self._busy = 0

    async def run(self) -> None:
        """Works until cancelled; what is under way then is tried again when its lease is over."""
        self._busy = 0  # of an earlier run, which the store's trouble has ended, nothing is under way
        async with asyncio.TaskGroup() as group:
            with self._database.listen(webhooks.TOPIC) as wake:
                while True:
                    wake.clear()
                    if self._busy < MOST and await self._database.read(webhooks.any_due):
                        for one in await self._database.write(webhooks.claim, MOST - self._busy, LEASE_SECONDS):
                            self._busy += 1
                            group.create_task(self._deliver(one))
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_SECONDS):
                            await wake.wait()

    async def _deliver(self, one: Try) -> None:
        try:
            headers = signed_headers(one.id, one.seconds, one.payload, one.secrets)
            answer = await self._poster.post(one.url, headers, one.payload, seconds=TRY_SECONDS)
        except Wan22Error as error:
            await self._refused(one, error.message, None)
        except Exception:  # a fault of ours must not take the other deliveries, and the gateway, along
            log.exception("deliveries/%s, try %d", one.id, one.number)
            await self._refused(one, "The gateway failed to send it by a fault of its own; its log has more.", None)
        else:
            if 200 <= answer.status < 300:
                await self._database.write(webhooks.taken, one)
            else:
                await self._refused(one, f"The receiver answered {answer.status}.", answer)
        finally:
            self._busy -= 1

    async def _refused(self, one: Try, error: str, answer: Answer | None) -> None:
        log.info("deliveries/%s, try %d: %s", one.id, one.number, error)
        for_good = answer is not None and answer.status == GONE
        after = None if answer is None else retry_after(answer.headers.get("retry-after", ""))
        await self._database.write(webhooks.refused, one, error, retry_after=after, for_good=for_good)


def retry_after(value: str) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3); None where it says nothing that can be read."""
    if value.strip().isdecimal():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
