"""The result store: finished MP4s and uploaded images as objects, by obstore."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import obstore
from obstore.store import LocalStore

from wan22.channels import CHUNK_BYTES
from wan22.durable_files import sync
from wan22.errors import DataLoss


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
        """Stores an object durably, replacing an earlier one of that key."""
        await obstore.put_async(self._store, key, content)
        await asyncio.to_thread(sync, self._folder / key)  # the object store renames into place, but does not fsync
        await asyncio.to_thread(sync, (self._folder / key).parent)

    async def read(self, key: str, size: int, offset: int = 0) -> AsyncIterator[bytes]:
        """Yields an object of a known size from an offset, in chunks of at most 1 MiB. Raises DataLoss."""
        try:
            while offset < size:
                length = min(CHUNK_BYTES, size - offset)
                chunk = await obstore.get_range_async(self._store, key, start=offset, length=length)
                if len(chunk) != length:
                    raise DataLoss(f"The stored object {key} ends at {offset + len(chunk)} of {size} bytes.")
                yield bytes(chunk)
                offset += length
        except FileNotFoundError:
            raise DataLoss(f"The stored object {key} is gone from {self._folder}.") from None

    async def size(self, key: str) -> int:
        """Bytes of an object. Raises DataLoss if it is gone."""
        try:
            meta = await obstore.head_async(self._store, key)
        except FileNotFoundError:
            raise DataLoss(f"The stored object {key} is gone from {self._folder}.") from None
        return int(meta["size"])

    async def delete(self, key: str) -> None:
        """Removes an object; one that is not there is no error."""
        with suppress(FileNotFoundError):
            await obstore.delete_async(self._store, key)
