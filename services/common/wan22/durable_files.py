"""Files that survive a crash whole: written aside, synced, renamed, the folder synced too."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from wan22.errors import ResourceExhausted

Result = TypeVar("Result")
TEMPORARY_SUFFIX = ".new"
"""Of what `replace_file` has not renamed yet; after a crash such a file is nothing."""


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file so that readers, and a start after a crash, see the old content or the new."""
    temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:  # a full disk, most likely
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Makes a file's content durable, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Writes every byte: a raw write may take fewer."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextmanager
def room_on_disk(folder: Path) -> Iterator[None]:
    """Turns the error of a full disk into ResourceExhausted naming the folder."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise ResourceExhausted(f"The disk of {folder} is full: free space on it.", retry_after=10) from error


async def to_its_end(function: Callable[..., Result], *args: Any) -> Result:
    """Runs a function in a thread and returns once it has ended, even where the caller is cancelled meanwhile.

    For changes: no lock is given up and no file is closed under a thread that still uses it.
    """
    running = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # nobody else will ask for it
        raise
