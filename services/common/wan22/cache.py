"""The cache folder: blobs of model versions on local disk, shared by the processes of one machine by means of locks.

`ROOT/blobs/sha256/HEX` is a blob, `HEX.part` one that is being pulled, `ROOT/locks/HEX` its lock file. Whoever pulls
holds the lock exclusively, whoever uses the blob holds it shared; both end with the process, even by kill -9. So
eviction may take what it can lock exclusively, and nothing else. Lock files stay: a removed one would give a blob
two locks.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from wan22.errors import DataLoss, Reason
from wan22.model_client import ModelClient
from wan22.v1 import model_pb2

log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
"""Called with the bytes at hand and the bytes in all."""


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


class Cache:
    """A cache folder; any number of processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs" / "sha256"
        self._locks = root / "locks"
        for folder in (self._blobs, self._locks):
            folder.mkdir(parents=True, exist_ok=True)

    async def pull(
        self, version: model_pb2.Version, client: ModelClient, progress: Progress | None = None
    ) -> CachedVersion:
        """Brings what is missing, verifies everything, and holds it.

        Raises DataLoss (DIGEST_MISMATCH) naming the file and both digests when the registry's copy is damaged; a
        damaged copy in the cache is replaced.
        """
        total, at_hand = version.size_bytes, 0
        paths: dict[str, Path] = {}
        held: list[int] = []
        try:
            for file in version.files:
                path, lock = await self._hold(file, client)
                paths[file.path] = path
                held.append(lock)
                at_hand += file.size_bytes
                if progress:
                    progress(at_hand, total)
        except BaseException:
            for lock in held:
                os.close(lock)
            raise
        return CachedVersion(version, paths, held)

    async def _hold(self, file: model_pb2.File, client: ModelClient) -> tuple[Path, int]:
        """Returns the verified blob of a file and a descriptor that locks it shared."""
        name = file.digest.removeprefix("sha256:")
        path = self._blobs / name
        lock = os.open(self._locks / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            while True:
                await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_SH)
                if await asyncio.to_thread(_is_whole, path, file):
                    return path, lock
                # flock gives up a shared lock before it waits for an exclusive one: look again once it is held
                await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
                if not await asyncio.to_thread(_is_whole, path, file):
                    await self._pull_blob(file, path, client)
        except BaseException:
            os.close(lock)
            raise

    async def _pull_blob(self, file: model_pb2.File, path: Path, client: ModelClient) -> None:
        part = path.with_name(path.name + ".part")
        digest = await asyncio.to_thread(_start_part, part, file.size_bytes)
        log.info("Pulling %s, %d bytes.", file.path, file.size_bytes)
        with part.open("ab") as out:
            async for data in client.read_blob(file.digest, out.tell()):
                await asyncio.to_thread(out.write, data)
                await asyncio.to_thread(digest.update, data)
            await asyncio.to_thread(_sync, out.fileno(), out.flush)
        actual = "sha256:" + digest.hexdigest()
        if actual != file.digest:
            part.unlink()
            raise DataLoss(
                f"{file.path} came from {client.target} with digest {actual}, not {file.digest}: verify the registry.",
                reason=Reason.DIGEST_MISMATCH,
                metadata={"file": file.path, "expected": file.digest, "actual": actual},
            )
        part.rename(path)
        await asyncio.to_thread(_sync_folder, path.parent)


def _is_whole(path: Path, file: model_pb2.File) -> bool:
    """True when the blob is here with its size and digest."""
    try:
        with path.open("rb") as blob:
            if os.fstat(blob.fileno()).st_size != file.size_bytes:
                log.warning("The cached copy of %s is not whole: pulling it again.", file.path)
                return False
            whole = "sha256:" + hashlib.file_digest(blob, "sha256").hexdigest() == file.digest
    except FileNotFoundError:
        return False
    if not whole:
        log.warning("The cached copy of %s is damaged: pulling it again.", file.path)
    return whole


def _start_part(part: Path, size: int) -> hashlib._Hash:  # the type of hashlib's objects has no other name
    """The running digest of what an interrupted pull has left; an overlong rest is dropped."""
    digest = hashlib.sha256()
    if part.exists() and part.stat().st_size > size:
        part.unlink()
    if part.exists():
        with part.open("rb") as rest:
            while data := rest.read(1 << 20):
                digest.update(data)
    return digest


def _sync(descriptor: int, flush: Callable[[], None]) -> None:
    flush()
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
