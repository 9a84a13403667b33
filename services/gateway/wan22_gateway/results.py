"""The result store: finished MP4s and uploaded images as objects, by obstore."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore

from wan22.channels import CHUNK_BYTES
from wan22.durable_files import sync
from wan22.errors import DataLoss, ResourceExhausted, Unavailable


def video_key(generation: str, attempt: int, owner_epoch: int) -> str:
    """A key that no other attempt and no other owner writes to."""
    return f"videos/{generation}/{attempt}-{owner_epoch}.mp4"


def recipe_key(video: str) -> str:
    """The key of the recipe beside a video of that key."""
    return video.removesuffix(".mp4") + ".recipe.json"


def checkpoint_key(generation: str, attempt: int, owner_epoch: int, step: int) -> str:
    """A key that no other attempt and no other owner writes to."""
    return f"checkpoints/{generation}/{attempt}-{owner_epoch}-{step}.safetensors"


def media_key(media_id: str) -> str:
    """The key of a normalised image; equal images share it."""
    return f"media/{media_id}.png"


class Results:
    """Objects in a local folder. An object that `put` has answered survives a power cut."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store = LocalStore(folder, mkdir=True)

    async def put(self, key: str, content: Path | bytes) -> None:
        """Stores an object durably, replacing an earlier one of that key.

        Raises ResourceExhausted when the disk is full, Unavailable on another error of the store, OSError.
        """
        with self._explained(key):
            await obstore.put_async(self._store, key, content)
        await asyncio.to_thread(sync, self._folder / key)  # the object store renames into place, but does not fsync
        await asyncio.to_thread(sync, (self._folder / key).parent)

    async def read(self, key: str, size: int, offset: int = 0) -> AsyncIterator[bytes]:
        """Yields an object of a known size from an offset, in chunks of at most 1 MiB.

        Raises DataLoss when it is gone or cut short, Unavailable on another error of the store.
        """
        with self._explained(key):
            stored = int((await obstore.head_async(self._store, key))["size"])
            if stored != size:
                raise DataLoss(f"The stored object {key} has {stored} bytes, not {size}.")
            while offset < size:
                length = min(CHUNK_BYTES, size - offset)
                yield bytes(await obstore.get_range_async(self._store, key, start=offset, length=length))
                offset += length

    async def size(self, key: str) -> int:
        """Bytes of an object. Raises DataLoss if it is gone."""
        with self._explained(key):
            return int((await obstore.head_async(self._store, key))["size"])

    async def delete(self, key: str) -> None:
        """Removes an object; one that is not there is no error."""
        with self._explained(key), suppress(FileNotFoundError):
            await obstore.delete_async(self._store, key)

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Turns the object store's own errors into ours."""
        try:
            yield
        except FileNotFoundError:
            raise DataLoss(f"The stored object {key} is gone from {self._folder}.") from None
        except BaseError as error:
            problem = str(error).partition("\n")[0]
            if f"os error {errno.ENOSPC}" in problem:
                text = f"The disk of {self._folder} is full: free space on it."
                raise ResourceExhausted(text, retry_after=10) from error
            raise Unavailable(f"{key} in {self._folder} cannot be reached: {problem}.", retry_after=1) from error
