"""Where objects of the result store lie: a folder of this machine, or a bucket of S3 or a compatible store."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, ObjectStore, S3Store

from wan22.durable_files import sync
from wan22.errors import FailedPrecondition, Reason, ResourceExhausted, Unavailable, Wan22Error

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config  # are in the stub file only

log = logging.getLogger(__name__)
PART_BYTES = 8 << 20
PARTS_AT_ONCE = 4
"""Of one upload to S3 in parts: with them 32 MiB of memory, however large the object is."""
WHOLE_BYTES = 96 << 20
WHOLE_AT_ONCE = 2
"""Up to that size an object goes to S3 in one request, since parts of an upload that a kill cuts off stay in the bucket
and are paid for. Videos and checkpoints are smaller. A large one is read into memory: so many of them at once."""
TIMEOUT, UPLOAD_TIMEOUT = timedelta(seconds=60), timedelta(seconds=120)
"""Of one request: an upload is as large as said above, any other asks for 4 MiB at most."""
CONTENT_TYPES = {".mp4": "video/mp4", ".json": "application/json", ".png": "image/png"}
"""What a browser is told of an object that it fetches from S3 itself."""
RETRIES: RetryConfig = {
    "max_retries": 4,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
    "retry_timeout": timedelta(seconds=15),
}
"""For a hiccup; whoever needs an object waits out a longer absence by itself, and says so."""


class Place(Protocol):
    """One kind of store behind the same calls of obstore."""

    name: str
    """For people: the folder, or s3://bucket/prefix."""
    store: ObjectStore
    signer: S3Store | None
    """What makes URLs of the store itself, which anybody may fetch; None where it has none."""

    async def check(self) -> None:
        """Raises FailedPrecondition (BAD_SETTING) where no patience will help."""

    async def put(self, key: str, content: Path | bytes) -> None:
        """Stores an object durably. Raises obstore's errors and OSError."""

    def explained(self, key: str, error: BaseError) -> Wan22Error:
        """An error of the store as one of ours."""


class Folder:
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self.store: ObjectStore = LocalStore(folder, mkdir=True, automatic_cleanup=True)
        self.signer: S3Store | None = None
        self._folder = folder

    async def check(self) -> None:
        """Nothing: the folder was made."""

    async def put(self, key: str, content: Path | bytes) -> None:
        """Writes, renames and syncs, the names of new folders too: obstore itself does not sync."""
        await obstore.put_async(self.store, key, content)
        path = self._folder / key
        for each in (path, *path.parents[: key.count("/") + 1]):
            await asyncio.to_thread(sync, each)

    def explained(self, key: str, error: BaseError) -> Wan22Error:
        """A full disk is ResourceExhausted, anything else Unavailable."""
        problem = str(error).partition("\n")[0]
        if f"os error {errno.ENOSPC}" in problem:
            return ResourceExhausted(f"The disk of {self.name} is full: free space on it.", retry_after=10)
        return Unavailable(f"{key} in {self.name} cannot be reached: {problem}.", retry_after=1)


class Bucket:
    """A bucket of S3. Credentials, region and endpoint come from the usual AWS_ variables, which are never logged.

    `endpoint` takes the place of AWS_ENDPOINT_URL; `public_endpoint` is where clients reach the same store, by which
    signed URLs are made.
    """

    def __init__(self, url: str, endpoint: str = "", public_endpoint: str = "") -> None:
        parts = urlsplit(url)
        self.name = url
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL", "")
        self.store: ObjectStore = self._open(endpoint)
        self._uploads = self._open(endpoint, UPLOAD_TIMEOUT)
        self._large = asyncio.Semaphore(WHOLE_AT_ONCE)
        self.signer: S3Store | None = self._open(public_endpoint or endpoint)

    def _open(self, endpoint: str, timeout: timedelta = TIMEOUT) -> S3Store:
        options: ClientConfig = {"timeout": timeout, "connect_timeout": timedelta(seconds=5)}
        if endpoint.startswith("http://"):
            options["allow_http"] = True
        if authority := os.environ.get("AWS_CA_BUNDLE"):
            options["root_certificate"] = Path(authority).read_bytes()
        config: S3Config = {"endpoint": endpoint.rstrip("/")} if endpoint else {}
        prefix = self._prefix or None
        return S3Store(self._bucket, prefix=prefix, config=config, client_options=options, retry_config=RETRIES)

    async def check(self) -> None:
        """Writes and deletes an object. A store that is merely away is waited for, by whoever needs it."""
        try:
            await obstore.put_async(self.store, "started", b"")
            await obstore.delete_async(self.store, "started")
        except (FileNotFoundError, PermissionDeniedError, UnauthenticatedError) as error:
            text = f"{self.name} cannot be used: {_first_line(error)}. Name a bucket that is there, by --results, and "
            text += "give credentials that may read and write it, by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            raise FailedPrecondition(text, reason=Reason.BAD_SETTING) from error
        except BaseError as error:
            log.warning("%s Videos wait on their workers until it is back.", self.explained("started", error).message)

    async def put(self, key: str, content: Path | bytes) -> None:
        """Uploads, as a whole where it is not too large, so that a kill leaves nothing behind."""
        kind = {"Content-Type": CONTENT_TYPES.get(Path(key).suffix, "application/octet-stream")}
        size = len(content) if isinstance(content, bytes) else content.stat().st_size  # noqa: ASYNC240  # of a local file
        if size > WHOLE_BYTES:
            await obstore.put_async(
                self._uploads, key, content, attributes=kind, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE
            )
            return
        async with self._large if size > PART_BYTES else nullcontext():
            await obstore.put_async(self._uploads, key, content, attributes=kind, use_multipart=False)

    def explained(self, key: str, error: BaseError) -> Wan22Error:
        """Unavailable: what is in the bucket is not lost, and what is not yet is kept elsewhere."""
        return Unavailable(f"{key} in {self.name} cannot be reached: {_first_line(error)}.", retry_after=1)


def open_place(location: str, endpoint: str = "", public_endpoint: str = "") -> Place:
    """The place that a setting names: a folder, or s3://bucket/prefix."""
    if location.startswith("s3://"):
        return Bucket(location, endpoint, public_endpoint)
    return Folder(Path(location))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")
