"""URLs by which anybody may fetch one video for a while: the store's own on S3, else ours, signed by the store's key.

One of ours names a generation and an end. Its signature (HMAC-SHA-256) covers these, the tenant and the video's digest,
which the row gives: so it leads to no other video, and to none once the generation is deleted or its video is gone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from urllib.parse import urlencode

from google.protobuf.duration_pb2 import Duration
from sqlalchemy import select

from wan22.errors import FailedPrecondition, InvalidRequest, NotFound, Reason
from wan22.v1 import generation_pb2
from wan22_gateway import videos
from wan22_gateway.generation_messages import video_message
from wan22_gateway.lifecycle import timestamp
from wan22_gateway.results import Results
from wan22_gateway.store.database import Database, Transaction
from wan22_gateway.store.generations import GenerationRow
from wan22_gateway.store.schema import generations, identity

MAX_SECONDS = 3600
REFUSED = "This URL is not one that this gateway has signed for a video that is there, or its time is over."


class DownloadUrls:
    """Makes URLs and checks them."""

    def __init__(self, database: Database, results: Results) -> None:
        self._database = database
        self._results = results
        self.base = ""
        """What URLs of the gateway itself begin with, without a slash at the end; empty while it serves no HTTP."""

    async def create(self, tenant: str, generation: str, valid_for: Duration | None) -> generation_pb2.DownloadUrl:
        """A URL of a tenant's video. Raises as `videos.get`, InvalidRequest, FailedPrecondition without HTTP."""
        seconds = _seconds(valid_for)

        def read(tx: Transaction) -> tuple[GenerationRow, int, float, bytes]:
            row = videos.get(tx, tenant, generation)
            end = tx.now + round(seconds * 1_000_000)
            if row.video_expire_time is not None:
                end = min(end, row.video_expire_time)
            return row, end, (end - tx.now) / 1_000_000, _key(tx)

        row, end, left, key = await self._database.read(read)
        url = await self._results.sign(row.video_key, max(1, int(left)))
        if url is None and not self.base:
            text = "This gateway has no URLs: its videos are in a folder, and its HTTP port is off. Use DownloadVideo."
            raise FailedPrecondition(text, reason=Reason.BAD_SETTING)
        if url is None:
            query = urlencode({"expires": end, "signature": _sign(key, row, end)})
            url = f"{self.base}/videos/{row.id}.mp4?{query}"
        return generation_pb2.DownloadUrl(url=url, expire_time=timestamp(end), video=video_message(row))

    async def open(self, generation: str, expires: str, signature: str) -> GenerationRow:
        """The row of the video that a URL of ours leads to. Raises NotFound, in the same words whatever is wrong."""
        return await self._database.read(_open, generation, expires, signature)


def _open(tx: Transaction, generation: str, expires: str, signature: str) -> GenerationRow:
    if "\0" in generation:  # PostgreSQL takes no such text
        raise NotFound(REFUSED)
    row = tx.execute(select(generations).where(generations.c.id == generation)).one_or_none()
    end = int(expires) if expires.isascii() and expires.isdigit() and len(expires) < 20 else 0
    if row is None or row.video_key is None or videos.is_expired(tx, row) or end <= tx.now:
        raise NotFound(REFUSED)
    if not hmac.compare_digest(_sign(_key(tx), row, end).encode(), signature.encode()):
        raise NotFound(REFUSED)
    return row


def _key(tx: Transaction) -> bytes:
    """The store's secret, which also signs page tokens; their text begins otherwise than a URL's."""
    secret: bytes = tx.execute(select(identity.c.page_key)).scalar_one()
    return secret


def _sign(key: bytes, row: GenerationRow, end: int) -> str:
    signed = "download url " + json.dumps([row.tenant, row.id, row.video_digest, end])
    return hmac.new(key, signed.encode(), hashlib.sha256).hexdigest()


def _seconds(valid_for: Duration | None) -> float:
    seconds = MAX_SECONDS if valid_for is None else valid_for.ToMicroseconds() / 1_000_000
    if not 0 < seconds <= MAX_SECONDS:
        text = f"valid_for is {seconds:g} s: use more than 0, and at most {MAX_SECONDS} s."
        raise InvalidRequest(text, field="valid_for")
    return seconds
