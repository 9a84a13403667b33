"""What arrives in pieces, such as an image: gathered within limits of size and time, a few large ones at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

SMALL_BYTES = 1 << 20
"""What is not counted among the large."""
LARGE_AT_ONCE = 4
"""Large ones that are held at once; others wait unread. Bounds the memory."""
PIECE_SECONDS = 15.0
"""How long the pieces may pause. Who is slow holds a place of few."""
WHOLE_SECONDS = 300.0
"""How long all of them may take: 32 MiB at 1 Mbit/s."""


class TooLarge(Exception):  # no error yet: the caller knows what was sent
    """There is more of it than may be."""


class TooSlow(Exception):  # no error yet either
    """It did not arrive in time; the text says how long that is."""


class Arrivals:
    """Gathers pieces, of one kind of things that arrive."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)

    @asynccontextmanager
    async def whole(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """All pieces; the context lasts while anything of them is held. Raises TooLarge, TooSlow."""
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(WHOLE_SECONDS):
                    data = await self._gather(pieces, held)
            except TimeoutError:
                raise TooSlow(f"within {WHOLE_SECONDS:g} s, or paused for {PIECE_SECONDS:g} s") from None
            yield data

    async def _gather(self, pieces: AsyncIterator[bytes], held: AsyncExitStack) -> bytes:
        data = bytearray()
        large = False
        while (piece := await _next(pieces)) is not None:
            data += piece
            if len(data) > self._max_bytes:
                raise TooLarge
            if len(data) > SMALL_BYTES and not large:
                large = True
                await held.enter_async_context(self._large)
        return bytes(data)


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    async with asyncio.timeout(PIECE_SECONDS):
        return await anext(pieces, None)
