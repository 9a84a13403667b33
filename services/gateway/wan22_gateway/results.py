"""The result store: finished MP4s, uploaded images and checkpoints as objects, by obstore."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.exceptions import BaseError

from wan22.channels import CHUNK_BYTES
from wan22.errors import DataLoss, Unavailable
from wan22_gateway.result_places import Place

READ_BYTES = 4 << 20
"""Asked for at a time: a request to S3 takes tens of milliseconds, and each reader holds so much."""


def video_key(generation: str, attempt: int, owner_epoch: int) -> str:
    """A key that no other attempt and no other owner writes to."""
    return f"videos/{generation}/{attempt}-{owner_epoch}.mp4"


def recipe_key(video: str) -> str:
    """The key of the recipe beside a video of that key."""
    return video.removesuffix(".mp4") + ".recipe.json"


def checkpoint_key(generation: str, attempt: int, owner_epoch: int, step: int) -> str:
    """A key that no other attempt and no other owner writes to."""
    return f"checkpoints/{generation}/{attempt}-{owner_epoch}-{step}.safetensors"


def media_key(tenant: str, media_id: str, upload: str) -> str:
    """The key of a tenant's normalised image; another one for each upload, so that none meets an earlier's deletion."""
    return f"media/{tenant}/{media_id}-{upload}.png"


class Results:
    """Objects in one place. An object that `put` has answered survives a power cut.

    Where the place is away, calls raise Unavailable: nothing is lost by it, and what is done again later succeeds.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._store = place.store

    async def check(self) -> None:
        """Raises FailedPrecondition (BAD_SETTING) when the place is not one to be used; says so when it is away."""
        await self._place.check()

    async def put(self, key: str, content: Path | bytes) -> None:
        """Stores an object durably, replacing an earlier one of that key; a file is read as it is sent.

        Raises ResourceExhausted when the disk is full, Unavailable on another error of the store, OSError.
        """
        with self._explained(key):
            try:
                await self._place.put(key, content)
            except FileNotFoundError as error:  # the bucket, or the folder, which somebody may put back
                problem = str(error).partition("\n")[0]
                text = f"{key} cannot be written to {self._place.name}: {problem}."
                raise Unavailable(text, retry_after=1) from error

    async def read(self, key: str, size: int, offset: int = 0) -> AsyncIterator[bytes]:
        """Yields an object of a known size from an offset, in chunks of at most 1 MiB.

        Raises DataLoss when it is gone or cut short, Unavailable on another error of the store.
        """
        with self._explained(key):
            stored = int((await obstore.head_async(self._store, key))["size"])
            if stored != size:
                raise DataLoss(f"The stored object {key} has {stored} bytes, not {size}.")
            while offset < size:
                length = min(READ_BYTES, size - offset)
                piece = memoryview(await obstore.get_range_async(self._store, key, start=offset, length=length))
                for start in range(0, length, CHUNK_BYTES):
                    yield bytes(piece[start : start + CHUNK_BYTES])
                offset += length

    async def size(self, key: str) -> int:
        """Bytes of an object. Raises DataLoss if it is gone."""
        with self._explained(key):
            return int((await obstore.head_async(self._store, key))["size"])

    async def delete(self, key: str) -> None:
        """Removes an object; one that is not there is no error."""
        with self._explained(key), suppress(FileNotFoundError):
            await obstore.delete_async(self._store, key)

    async def sign(self, key: str, seconds: float) -> str | None:
        """A URL of the store itself that gives an object to anybody for so long; None where it has none."""
        if self._place.signer is None:
            return None
        with self._explained(key):
            return await obstore.sign_async(self._place.signer, "GET", key, timedelta(seconds=seconds))

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Turns the object store's own errors into ours."""
        try:
            yield
        except FileNotFoundError:
            raise DataLoss(f"The stored object {key} is gone from {self._place.name}.") from None
        except BaseError as error:
            raise self._place.explained(key, error) from error
