"""Waking whoever waits for a change."""

from __future__ import annotations

import asyncio


class Signal:
    """Tells waiters on the same loop that something has changed; they look for themselves what it is."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wakes everybody who waits now."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        """Returns at the next notify after this call."""
        await self._event.wait()
