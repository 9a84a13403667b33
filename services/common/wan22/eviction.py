"""Makes room in a cache folder: takes what was used longest ago, and only what nobody has locked."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wan22.errors import ResourceExhausted

log = logging.getLogger(__name__)
PART = ".part"


@dataclass(frozen=True)
class _Kept:
    """A blob, or what has come of one."""

    path: Path
    size: int
    used: int
    """When its lock was last taken, ns since 1970."""


def make_room(
    blobs: Path,
    locks: Path,
    *,
    needed: int,
    quota: int,
    keep: Collection[str],
    on_evicted: Callable[[int], object] = lambda _: None,
) -> None:
    """Removes blobs, those of `keep` (hex digests) excepted, until `needed` more bytes stay within the quota.

    `on_evicted` hears the bytes of each. Raises ResourceExhausted where that cannot be: what is left is in use. Counts
    what is there now: processes that pull different versions at the same time can together exceed the quota, until the
    next one makes room.
    """
    files = sorted(_list(blobs, locks), key=lambda file: file.used)
    total = sum(file.size for file in files)
    for file in files:
        if total + needed <= quota:
            return
        name = file.path.name.removesuffix(PART)
        if name in keep:
            continue
        with _locked(locks / name) as alone:
            if alone:
                file.path.unlink(missing_ok=True)
                total -= file.size
                on_evicted(file.size)
                log.info("Evicted %s from the cache, %d bytes.", file.path.name, file.size)
    if needed and total + needed > quota:
        text = f"{needed} more bytes do not fit into the cache folder {blobs.parent.parent}: its quota is {quota}, and"
        text += f" {total} bytes are in use. End a process that uses another version, or raise the quota."
        raise ResourceExhausted(text)


def _list(blobs: Path, locks: Path) -> Iterator[_Kept]:
    for path in blobs.iterdir():
        try:
            size = path.stat().st_size
            used = (locks / path.name.removesuffix(PART)).stat().st_mtime_ns
        except FileNotFoundError:  # another process has renamed or evicted it
            continue
        yield _Kept(path, size, used)


@contextmanager
def _locked(lock: Path) -> Iterator[bool]:
    """Tells whether the lock could be taken exclusively, and holds it then."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
