"""Uploaded images: checked and normalised by the decoder, then kept by the digest of their pixels.

The same image of a tenant is kept once; what another tenant has makes no difference to anybody.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

from wan22.errors import DataLoss, DeadlineExceeded, InvalidRequest, ResourceExhausted
from wan22_gateway.arriving import Arrivals, TooLarge, TooSlow
from wan22_gateway.media_decoder import DecoderLimits, decode, decoder
from wan22_gateway.results import Results, media_key
from wan22_gateway.store import media, objects
from wan22_gateway.store.database import Database

log = logging.getLogger(__name__)
MAX_BYTES = 32 << 20
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
        self._arrivals = Arrivals(MAX_BYTES)

    async def add(self, tenant: str, chunks: AsyncIterator[bytes]) -> StoredMedia:
        """Stores an image durably.

        Raises InvalidRequest (MEDIA_UNREADABLE) saying what is wrong with it, DeadlineExceeded when it does not arrive,
        ResourceExhausted (QUOTA_EXCEEDED) when the tenant may have no more.
        """
        try:
            async with self._arrivals.whole(chunks) as data, self._one_at_a_time:
                png, width, height = await decode(data, LIMITS, decoder(LIMITS))
        except TooLarge:
            raise InvalidRequest(
                f"The image has more than {MAX_BYTES} bytes: send a smaller file.", field="data"
            ) from None
        except TooSlow as error:
            raise DeadlineExceeded(f"The image did not arrive {error}: send it anew.") from None
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
