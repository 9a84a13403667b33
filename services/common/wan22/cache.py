"""The cache folder: blobs of model versions on local disk, shared by the processes of one machine by means of locks.

`ROOT/blobs/sha256/HEX` is a blob, `HEX.part` one that is being pulled, `ROOT/locks/HEX` its lock file, taken by flock.
Whoever pulls, replaces or removes a blob holds the lock exclusively, whoever uses it holds it shared; both end with
the process, even by kill -9. So eviction may take what it can lock exclusively, and nothing else. Lock files stay: a
removed one would give a blob two locks.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from wan22.digests import Sha256, digest_file
from wan22.durable_files import room_on_disk, sync, to_its_end, write_all
from wan22.errors import DataLoss, OutOfRange, Reason, Unavailable
from wan22.eviction import PART, make_room
from wan22.model_client import ByteCount, ModelClient, Progress
from wan22.v1 import model_pb2

log = logging.getLogger(__name__)
LOCK_LOOK_SECONDS = 0.1
"""How often a lock is tried that another process holds; a blocking flock could not be cancelled."""
LOCK_PATIENCE_SECONDS = 300.0
"""How long another process may hold a blob's lock without a byte arriving: hashing and syncing 30 GB takes a minute."""
Identity = tuple[int, int]
"""Inode and time of change (ns) of a blob: another file of the same name has others."""


class CachedVersion:
    """A version whose blobs are all here, verified, and locked against eviction until `close`."""

    def __init__(self, version: model_pb2.Version, paths: dict[str, Path], locks: list[int]) -> None:
        self.version = version
        self.files = paths
        """Local path of each of the version's files, by its path in the version."""
        self._locks = locks

    def path(self, file: str) -> Path:
        """The local path of a file; raises KeyError for one that the version does not have."""
        return self.files[file]

    def close(self) -> None:
        """Ends the use; the blobs may be evicted from now on."""
        for lock in self._locks:
            os.close(lock)
        self._locks = []


@dataclass
class CacheCounts:
    """What a process has done with the folder."""

    hits: int = 0
    """Blobs asked for that were here."""
    misses: int = 0
    """Blobs asked for that had to be pulled."""
    evicted_blobs: int = 0
    evicted_bytes: int = 0


class Cache:
    """A cache folder; any number of processes may use it at once."""

    def __init__(self, root: Path, quota: int | None = None) -> None:
        """`quota` is the most bytes of blobs, if there is a bound."""
        self.counts = CacheCounts()
        self._quota = quota
        self._blobs = root / "blobs" / "sha256"
        self._locks = root / "locks"
        for folder in (self._blobs, self._locks):
            folder.mkdir(parents=True, exist_ok=True)

    async def pull(
        self,
        version: model_pb2.Version,
        client: ModelClient,
        progress: Progress | None = None,
        *,
        verified_later: Callable[[model_pb2.File], bool] = lambda _: False,
    ) -> CachedVersion:
        """Brings what is missing, verifies everything, and holds it.

        Of what is here already and is verified later, by the caller as it is read, only the size is looked at.

        Raises DataLoss (DIGEST_MISMATCH) naming the file and both digests when the registry's copy is damaged; a
        damaged copy in the cache is replaced. Raises ResourceExhausted on a full disk, and where what is in use leaves
        no room under the quota; Unavailable when another process holds a blob's lock without pulling it.
        """
        if self._quota is not None:
            await to_its_end(self._make_room, version, self._quota)
        count = ByteCount(version.size_bytes, progress)
        blobs: dict[str, Path] = {}
        held: list[int] = []
        try:
            for file in version.files:
                if file.digest not in blobs:  # two files may share a blob
                    name = file.digest.removeprefix("sha256:")
                    blob = CachedBlob(self._blobs / name, self._locks / name, file)
                    held.append(blob.lock)
                    if await blob.hold(client, count.within, verified_later=verified_later(file)):
                        self.counts.misses += 1
                    else:
                        self.counts.hits += 1
                    blobs[file.digest] = blob.path
                count.finish(file.size_bytes)
        except BaseException:
            for lock in held:
                os.close(lock)
            raise
        return CachedVersion(version, {file.path: blobs[file.digest] for file in version.files}, held)

    def _make_room(self, version: model_pb2.Version, quota: int) -> None:
        sizes = {file.digest.removeprefix("sha256:"): file.size_bytes for file in version.files}
        missing = [name for name in sizes if not (self._blobs / name).exists()]
        here = sum(_size(self._blobs / f"{name}{PART}") for name in missing)
        needed = sum(sizes[name] for name in missing) - here
        self._evict(needed, quota, sizes.keys())

    def trim(self) -> None:
        """Brings the folder back under its quota, as far as what is in use allows: others may pull without one."""
        if self._quota is not None:
            self._evict(0, self._quota, ())

    def used_bytes(self) -> int:
        """Bytes of the blobs, unfinished ones included."""
        return sum(_size(path) for path in self._blobs.iterdir())

    def _evict(self, needed: int, quota: int, keep: Collection[str]) -> None:
        def count(size: int) -> None:
            self.counts.evicted_blobs += 1
            self.counts.evicted_bytes += size

        make_room(self._blobs, self._locks, needed=needed, quota=quota, keep=keep, on_evicted=count)


class CachedBlob:
    """One blob of the folder, by this process's descriptor of its lock."""

    def __init__(self, path: Path, lock: Path, file: model_pb2.File) -> None:
        self.path = path
        self.lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._part = path.with_name(path.name + PART)
        self._file = file

    async def hold(self, client: ModelClient, report: Callable[[int], object], *, verified_later: bool = False) -> bool:
        """Returns with the blob whole and the lock shared; whether it had to be pulled."""
        pulled: Identity | None = None
        while True:
            await self._take(fcntl.LOCK_SH, report)
            here = self._identity()
            if here is not None and (verified_later or here == pulled or await self._has_its_digest(report)):
                os.utime(self.lock, ns=(time.time_ns(),) * 2)  # what eviction goes by, finer than the kernel's own
                return pulled is not None
            # given up first: two processes that each waited with a shared lock for the exclusive one would wait on
            fcntl.flock(self.lock, fcntl.LOCK_UN)
            # whoever won goes on with a shared lock, so that waiting ends with the blob's arrival, not with a lock
            locked = await self._take(fcntl.LOCK_EX, report, unless=partial(self._differs_from, here))
            if locked and here == self._identity():  # nobody has replaced it meanwhile
                if self.path.exists():
                    log.warning("The cached copy of %s is damaged: pulling it again.", self._file.path)
                    self.path.unlink()
                await self._pull(client, report)
                pulled = self._identity()

    async def _take(
        self, mode: int, report: Callable[[int], object], *, unless: Callable[[], bool] = lambda: False
    ) -> bool:
        """Locks, waiting for as long as another process gets on with pulling the blob; whether it did.

        Gives up as soon as the lock is taken by another process and `unless` is true.
        """
        seen, end = -1, time.monotonic()
        while True:
            try:
                fcntl.flock(self.lock, mode | fcntl.LOCK_NB)
            except BlockingIOError:
                if unless():
                    return False
                size = self._part_size()
                if size != seen:
                    if seen < 0:
                        log.info("Waiting for another process that has locked %s.", self._file.path)
                    report(size)
                    seen, end = size, time.monotonic() + LOCK_PATIENCE_SECONDS
                if time.monotonic() > end:
                    raise self._stuck(mode) from None
                await asyncio.sleep(LOCK_LOOK_SECONDS)
            else:
                return True

    def _stuck(self, mode: int) -> Unavailable | DataLoss:
        if mode == fcntl.LOCK_EX and self.path.exists():
            text = f"The cached copy of {self._file.path} is not {self._file.digest}, and another process uses it:"
            return DataLoss(f"{text} stop that process, then {self.path} is replaced.", reason=Reason.DIGEST_MISMATCH)
        text = f"Another process has locked {self._file.path} for {LOCK_PATIENCE_SECONDS:g} s without pulling it:"
        return Unavailable(f"{text} see who holds {self.path.name} in the cache folder's locks/.")

    async def _has_its_digest(self, report: Callable[[int], object]) -> bool:
        try:
            return str(await digest_file(self.path, on_bytes=report)) == self._file.digest
        except FileNotFoundError:
            return False

    async def _pull(self, client: ModelClient, report: Callable[[int], object]) -> None:
        """Pulls the blob while the lock is held exclusively; goes on with what an interrupted pull has left."""
        size = self._part_size()
        if size > self._file.size_bytes:
            self._part.unlink()
        elif size:
            log.info("Going on with %s at byte %d of %d.", self._file.path, size, self._file.size_bytes)
            try:
                await self._fill(client, report)
            except (DataLoss, OutOfRange) as error:
                log.warning("Pulling %s from its start, since going on failed: %s", self._file.path, error.message)
                self._part.unlink(missing_ok=True)
            else:
                return
        log.info("Pulling %s, %d bytes.", self._file.path, self._file.size_bytes)
        await self._fill(client, report)

    async def _fill(self, client: ModelClient, report: Callable[[int], object]) -> None:
        with self._part.open("ab", buffering=0) as out:
            position, digest = out.tell(), await digest_file(self._part)

            def append(data: bytes) -> None:
                with room_on_disk(self.path.parent):
                    write_all(out.fileno(), data)
                digest.update(data)

            try:
                async with aclosing(client.read_blob(self._file.digest, position)) as stream:
                    async for data in stream:
                        position += len(data)
                        if position > self._file.size_bytes:
                            break
                        await to_its_end(append, data)
                        report(position)
            except DataLoss as error:  # the registry has found it too; what came says more
                log.warning("%s: %s", client.target, error.message)
                if position == self._file.size_bytes and str(digest) == self._file.digest:
                    raise
            await to_its_end(os.fsync, out.fileno())
        if position != self._file.size_bytes or str(digest) != self._file.digest:
            self._part.unlink()
            raise self._damaged(client.target, position, digest)
        self._part.rename(self.path)
        await to_its_end(sync, self.path.parent)

    def _damaged(self, registry: str, position: int, digest: Sha256) -> DataLoss:
        size, wanted = self._file.size_bytes, self._file.digest
        longer = "more than " if position > size else ""
        came = f"{longer}{min(position, size)} of {size} bytes, with digest {digest}, not {wanted}"
        return DataLoss(
            f"The registry at {registry} has a damaged copy of {self._file.path}: it sent {came}. "
            "Import the model again.",
            reason=Reason.DIGEST_MISMATCH,
            metadata={"file": self._file.path, "expected": wanted, "actual": str(digest)},
        )

    def _part_size(self) -> int:
        return _size(self._part)

    def _differs_from(self, seen: Identity | None) -> bool:
        return self._identity() != seen

    def _identity(self) -> Identity | None:
        """Which file the blob is now; None when it is not there with its size."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return (found.st_ino, found.st_mtime_ns) if found.st_size == self._file.size_bytes else None


def _size(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
