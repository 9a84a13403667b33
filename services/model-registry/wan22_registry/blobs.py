"""Blobs on the volume, by SHA-256: whole ones appear by rename, halves wait as parts for the push to go on."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wan22.errors import DataLoss, InvalidRequest, NotFound, Reason, Unavailable

UNPUBLISHED_SECONDS = 24 * 3600
"""How long a blob that no version has yet is kept: longer than any push of a whole model takes."""


class BlobPush:
    """One blob on its way in. `append` and `finish` block; call them from a thread, one at a time."""

    def __init__(self, part: Path, target: Path, digest: str, size: int, offset: int) -> None:
        self._target = target
        self._part = part
        self._digest = digest
        self._size = size
        self._hash = hashlib.sha256()
        self._file = part.open("ab")
        if offset > self._file.tell():
            self._file.close()
            text = f"offset is {offset}, but {part.stat().st_size} bytes of {digest} are here: start there or before."
            raise InvalidRequest(text, field="offset")
        self._file.truncate(offset)
        self.offset = offset
        with part.open("rb") as begun:
            while data := begun.read(1 << 20):
                self._hash.update(data)

    def append(self, data: bytes) -> None:
        """Adds the next bytes. Raises InvalidRequest beyond the declared size."""
        if self.offset + len(data) > self._size:
            text = f"{self._digest} was declared with {self._size} bytes, but more have come."
            raise InvalidRequest(text, field="blob.size_bytes")
        self._file.write(data)
        self._hash.update(data)
        self.offset += len(data)

    def finish(self) -> None:
        """Makes the blob durable and visible. Raises DataLoss, and forgets the bytes, when they are others."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        actual = "sha256:" + self._hash.hexdigest()
        if self.offset < self._size:
            raise DataLoss(f"{self._digest} ends at {self.offset} of {self._size} bytes: push the rest.")
        if actual != self._digest:
            self._part.unlink()
            text = f"The pushed bytes have digest {actual}, not {self._digest}: push them again."
            metadata = {"expected": self._digest, "actual": actual}
            raise DataLoss(text, reason=Reason.DIGEST_MISMATCH, metadata=metadata)
        self._part.rename(self._target)
        sync_folder(self._target.parent)

    def discard(self) -> None:
        """Forgets what came."""
        self._part.unlink(missing_ok=True)

    def close(self) -> None:
        """Ends a push that may go on later: what came is kept."""
        self._file.close()


class BlobStore:
    """`blobs/sha256` of a layout; counts who uses which blob, so that a collection leaves those alone."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "blobs" / "sha256"
        self._parts = root / "parts"
        for folder in (self._folder, self._parts):
            folder.mkdir(parents=True, exist_ok=True)
        self._used: Counter[str] = Counter()
        self._pushed: set[str] = set()

    def path(self, digest: str) -> Path:
        """Where a blob is or would be."""
        return self._folder / digest.removeprefix("sha256:")

    def size(self, digest: str) -> int | None:
        """Bytes of a blob; None when it is not here."""
        path = self.path(digest)
        return path.stat().st_size if path.exists() else None

    def partial_size(self, digest: str) -> int:
        """Bytes that an interrupted push has left."""
        part = self._parts / digest.removeprefix("sha256:")
        return part.stat().st_size if part.exists() else 0

    @contextmanager
    def use(self, *digests: str) -> Iterator[None]:
        """Keeps blobs from being collected."""
        self._used.update(digests)
        try:
            yield
        finally:
            self._used.subtract(digests)

    @contextmanager
    def push(self, digest: str, size: int, offset: int) -> Iterator[BlobPush]:
        """Opens a push. Raises Unavailable while another caller pushes the same blob."""
        if digest in self._pushed:
            raise Unavailable(f"{digest} is being pushed by another caller: wait for it.", retry_after=0.2)
        self._pushed.add(digest)
        push = BlobPush(self._parts / digest.removeprefix("sha256:"), self.path(digest), digest, size, offset)
        try:
            with self.use(digest):
                yield push
        except OSError:  # a full disk, most likely: a part that cannot grow must not fill it
            push.discard()
            raise
        finally:
            push.close()
            self._pushed.discard(digest)

    def write(self, content: bytes) -> str:
        """Stores a small blob durably and returns its digest."""
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        if self.size(digest) != len(content):
            replace(self.path(digest), content)
        return digest

    def open(self, digest: str) -> int:
        """A descriptor to read a blob by; the bytes stay even if the blob is deleted. Raises NotFound."""
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            text = f"Blob {digest} is not in this registry."
            raise NotFound(text, reason=Reason.BLOB_MISSING) from None

    def digest_of(self, digest: str) -> str:
        """What a blob's bytes hash to now; empty when it is not here."""
        try:
            with self.path(digest).open("rb") as file:
                return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return ""

    def collect(self, live: set[str], released: set[str]) -> list[str]:
        """Deletes blobs that are neither live nor in use, and returns them.

        `released` go at once; others may be on their way into a version, and go a day after they came.
        """
        gone = []
        for part in self._parts.iterdir():
            if part.name not in self._pushed and _age(part) > UNPUBLISHED_SECONDS:
                part.unlink()
        for path in self._folder.iterdir():
            digest = f"sha256:{path.name}"
            abandoned = digest in released or _age(path) > UNPUBLISHED_SECONDS
            if abandoned and digest not in live and self._used[digest] <= 0:
                path.unlink()
                gone.append(digest)
        return gone


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def replace(path: Path, content: bytes) -> None:
    """Writes a file durably so that a reader sees either the old content or the new."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
