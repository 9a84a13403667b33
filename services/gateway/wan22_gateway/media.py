"""Uploaded images: checked and normalised by the decoder, then kept by the digest of their pixels.

The same image of a tenant is kept once; what another tenant has makes no difference to anybody.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

from wan22.errors import DataLoss, DeadlineExceeded, InvalidRequest, ResourceExhausted
from wan22_gateway.media_decoder import DecoderLimits, decode, decoder
from wan22_gateway.results import Results, media_key
from wan22_gateway.store import media, objects
from wan22_gateway.store.database import Database

log = logging.getLogger(__name__)
MAX_BYTES = 32 << 20
SMALL_BYTES = 1 << 20
"""An image that is not counted among the large ones."""
LARGE_AT_ONCE = 4
"""Large images that are held at once; others wait unread. Bounds the memory: 4 x 32 MiB."""
PIECE_SECONDS, UPLOAD_SECONDS = 15.0, 300.0
"""How long an upload may pause, and how long it may take: 32 MiB at 1 Mbit/s. Who is slow holds a place of few."""
LIMITS = DecoderLimits()


@dataclass(frozen=True)
class StoredMedia:
    """An image that generations can start from."""

    id: str
    width: int
    height: int


class MediaLibrary:
    """Takes images in and gives their PNGs out."""

    def __init__(self, database: Database, results: Results) -> None:
        self._database = database
        self._results = results
        self._one_at_a_time = asyncio.Semaphore(2)  # decoding is CPU work beside the gateway's own
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)

    async def add(self, tenant: str, chunks: AsyncIterator[bytes]) -> StoredMedia:
        """Stores an image durably.

        Raises InvalidRequest (MEDIA_UNREADABLE) saying what is wrong with it, DeadlineExceeded when it does not arrive,
        ResourceExhausted (QUOTA_EXCEEDED) when the tenant may have no more.
        """
        async with AsyncExitStack() as held:
            data = await self._gather(chunks, held)
            async with self._one_at_a_time:
                png, width, height = await decode(data, LIMITS, decoder(LIMITS))
        media_id = await asyncio.to_thread(lambda: hashlib.sha256(png).hexdigest())
        known = await self._database.write(media.touch, tenant, media_id)
        if known is None:
            await self._database.read(media.check_room, tenant, len(png))
        if known is None or not await self._is_there(known):
            key = media_key(tenant, media_id, secrets.token_hex(8))
            await self._database.write(objects.begin, key)
            await self._results.put(key, png)
            if known is None:
                await self._add(tenant, StoredMedia(media_id, width, height), len(png), key)
            else:
                await self._database.write(media.replace, tenant, media_id, len(png), key)
        return StoredMedia(media_id, width, height)

    async def _gather(self, chunks: AsyncIterator[bytes], held: AsyncExitStack) -> bytes:
        """All that comes; a large one holds a place for as long as `held` is open, and waits for it unread."""
        data = bytearray()
        large = False
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                while (chunk := await _next(chunks)) is not None:
                    data += chunk
                    if len(data) > MAX_BYTES:
                        text = f"The image has more than {MAX_BYTES} bytes: send a smaller file."
                        raise InvalidRequest(text, field="data")
                    if len(data) > SMALL_BYTES and not large:
                        large = True
                        await held.enter_async_context(self._large)
        except TimeoutError:
            text = f"The image did not arrive within {UPLOAD_SECONDS:g} s, or paused for {PIECE_SECONDS:g} s"
            raise DeadlineExceeded(f"{text}: send it anew.") from None
        return bytes(data)

    async def read(self, tenant: str, media_id: str) -> AsyncIterator[bytes]:
        """Yields a tenant's image, a PNG, in chunks of at most 1 MiB. Raises NotFound, DataLoss, Unavailable."""
        key = (await self._database.read(media.get, tenant, media_id)).key
        async for chunk in self._results.read(key, await self._results.size(key)):
            yield chunk

    async def _add(self, tenant: str, image: StoredMedia, size_bytes: int, key: str) -> None:
        try:
            await self._database.write(media.add, tenant, image.id, (image.width, image.height), size_bytes, key)
        except ResourceExhausted:  # others have come since there was room
            await self._database.write(objects.discard, key)
            raise

    async def _is_there(self, key: str) -> bool:
        try:
            await self._results.size(key)
        except DataLoss as error:
            log.warning("An image is stored anew: %s", error.message)
            return False
        return True


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    async with asyncio.timeout(PIECE_SECONDS):
        return await anext(chunks, None)
