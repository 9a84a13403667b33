"""Blobs on the volume, by SHA-256: whole ones appear by rename, halves wait as parts for the push to go on."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from wan22.digests import Sha256
from wan22.durable_files import TEMPORARY_SUFFIX, replace_file, to_its_end
from wan22.errors import NotFound, Reason, ResourceExhausted, Unavailable
from wan22_registry.blob_push import BlobPush

UNPUBLISHED_SECONDS = 24 * 3600
"""How long a blob that no version has yet is kept: longer than any push of a whole model takes."""
BUSY_RETRY_SECONDS = 0.5
"""When to ask again for a blob that another caller pushes."""


@dataclass(frozen=True)
class Usage:
    """What a store keeps now."""

    blobs: int
    blob_bytes: int
    part_bytes: int
    damaged: int
    """Blobs that were found damaged and not pushed again."""


class BlobStore:
    """`blobs/sha256` of a layout, and `parts` of blobs beside it.

    Counts who uses which blob: a collection takes a blob in use once its last user has gone. What was found damaged
    or waits for that counts as missing, so that it is pushed again.
    """

    def __init__(self, root: Path, quota: int | None = None) -> None:
        """`quota` is the most bytes of blobs, if there is a bound."""
        self._root = root
        self._quota = quota
        self._folder = root / "blobs" / "sha256"
        self._parts = root / "parts"
        for folder in (self._folder, self._parts):
            folder.mkdir(parents=True, exist_ok=True)
        self._used: Counter[str] = Counter()
        self._pushed: dict[str, int] = {}
        """Size of each blob that is being pushed."""
        self._damaged: set[str] = set()
        self._doomed: set[str] = set()

    def path(self, digest: str) -> Path:
        """Where a blob is or would be."""
        return self._folder / digest.removeprefix("sha256:")

    def size(self, digest: str) -> int | None:
        """Bytes of a blob; None when it is missing."""
        if digest in self._damaged or digest in self._doomed:
            return None
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def partial_size(self, digest: str) -> int:
        """Bytes that an interrupted push has left."""
        part = self._part(digest)
        return part.stat().st_size if part.exists() else 0

    def usage(self) -> Usage:
        """Counts what is on the volume; may run in any thread."""
        sizes = [_size(file) for file in os.scandir(self._folder)]
        parts = sum(_size(file) for file in os.scandir(self._parts))
        return Usage(len(sizes), sum(sizes), parts, len(self._damaged))

    def set_damaged(self, digest: str, *, damaged: bool) -> None:
        """Remembers what a blob's bytes were when they were last read whole."""
        (self._damaged.add if damaged else self._damaged.discard)(digest)

    @contextmanager
    def use(self, *digests: str) -> Iterator[None]:
        """Keeps blobs from being collected. Runs on the event loop, as everything that changes who uses what."""
        self._used.update(digests)
        try:
            yield
        finally:
            self._used.subtract(digests)
            for digest in set(digests):
                if self._used[digest] > 0:
                    continue
                del self._used[digest]
                if digest in self._doomed:
                    self._doomed.discard(digest)
                    self.path(digest).unlink(missing_ok=True)

    @asynccontextmanager
    async def push(self, digest: str, size: int, offset: int) -> AsyncIterator[BlobPush]:
        """Opens a push.

        Raises Unavailable (BLOB_BUSY) while another caller pushes the same blob, ResourceExhausted (REGISTRY_FULL) for
        one that the quota leaves no room for; nothing of it is taken then.
        """
        if digest in self._pushed:
            text = f"{digest} is being pushed by another caller: wait for it."
            raise Unavailable(text, reason=Reason.BLOB_BUSY, retry_after=BUSY_RETRY_SECONDS)
        self._check_quota(digest, size)
        self._pushed[digest] = size
        push = BlobPush(self._part(digest), self.path(digest), digest, size)
        try:
            with self.use(digest):
                await to_its_end(push.open, offset)
                yield push
                await to_its_end(push.finish)
                self._damaged.discard(digest)
                self._doomed.discard(digest)
        except OSError:  # a full disk, most likely: a part that cannot grow must not fill it
            push.discard()
            raise
        finally:
            push.close()
            del self._pushed[digest]

    def write(self, content: bytes) -> str:
        """Stores a small blob durably, over a damaged one too, and returns its digest."""
        digest = str(Sha256(content))
        try:
            stored = self.path(digest).read_bytes()
        except FileNotFoundError:
            stored = None
        if stored != content:
            replace_file(self.path(digest), content)
        self._damaged.discard(digest)
        self._doomed.discard(digest)
        return digest

    def open(self, digest: str) -> int:
        """A descriptor to read a blob by; the bytes stay even if the blob is deleted. Raises NotFound."""
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            text = f"Blob {digest} is not in this registry."
            raise NotFound(text, reason=Reason.BLOB_MISSING) from None

    def collect(self, live: set[str], released: set[str]) -> list[str]:
        """Deletes blobs that no version has, at the latest when their last user has gone, and returns them.

        `released` go at once; others may be on their way into a version, and go a day after they came.
        """
        gone = []
        for path in self._folder.iterdir():
            digest = f"sha256:{path.name}"
            if digest in live or not (digest in released or _age(path) > UNPUBLISHED_SECONDS):
                continue
            if self._used[digest] > 0:
                self._doomed.add(digest)
            else:
                path.unlink()
            gone.append(digest)
        return gone

    def remove_temporaries(self) -> list[Path]:
        """Removes what a killed process left half-written, and returns it; for the start, before anybody writes."""
        gone = [path for folder in (self._root, self._folder) for path in folder.glob(f".*{TEMPORARY_SUFFIX}")]
        for path in gone:
            path.unlink()
        return gone

    def drop_parts(self) -> list[Path]:
        """Removes parts that nobody will go on with: of stored blobs, or untouched for a day. Returns them."""
        gone = [
            part
            for part in self._parts.iterdir()
            if part.name not in {digest.removeprefix("sha256:") for digest in self._pushed}
            and ((self._folder / part.name).exists() or _age(part) > UNPUBLISHED_SECONDS)
        ]
        for part in gone:
            part.unlink()
        return gone

    def _check_quota(self, digest: str, size: int) -> None:
        """Parts count as what has come of them, blobs that are being pushed as what they will be."""
        if self._quota is None or self.size(digest) == size:
            return
        name = digest.removeprefix("sha256:")
        pushed = {pushed.removeprefix("sha256:"): bytes_ for pushed, bytes_ in self._pushed.items()}
        files = [*os.scandir(self._folder), *os.scandir(self._parts)]
        kept = sum(_size(file) for file in files if file.name != name and file.name not in pushed)
        kept += sum(pushed.values())
        if kept + size > self._quota:
            text = f"This registry may keep {self._quota} bytes and has {kept}, so that {size} more find no room:"
            raise ResourceExhausted(f"{text} delete versions, or raise its quota.", reason=Reason.REGISTRY_FULL)

    def _part(self, digest: str) -> Path:
        return self._parts / digest.removeprefix("sha256:")


def _age(path: Path) -> float:
    """Seconds since it was written."""
    return time.time() - path.stat().st_mtime


def _size(file: os.DirEntry[str]) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # collected, or a part that has become a blob
        return 0
