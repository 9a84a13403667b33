"""One blob on its way in: appended to a part, hashed as it comes, made visible by a rename."""

from __future__ import annotations

import os
from pathlib import Path

from wan22.digests import Sha256
from wan22.durable_files import sync, write_all
from wan22.errors import DataLoss, InvalidRequest, OutOfRange, Reason

PIECE_BYTES = 1 << 20


class BlobPush:
    """Use by one task; every method blocks and runs in a thread to its end."""

    def __init__(self, part: Path, target: Path, digest: str, size: int) -> None:
        self._part = part
        self._target = target
        self._digest = digest
        self._size = size
        self._hash = Sha256()
        self._descriptor: int | None = None
        self.offset = 0
        """Where the next byte goes."""

    def open(self, offset: int) -> None:
        """Goes on at an offset of what is here. Raises OutOfRange beyond it; creates nothing then."""
        here = self._part.stat().st_size if self._part.exists() else 0
        if offset > min(here, self._size):
            text = f"offset is {offset}, but {here} of {self._size} bytes of {self._digest} are here"
            raise OutOfRange(f"{text}: start there or before.")
        self._descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.ftruncate(self._descriptor, offset)
        while data := os.read(self._descriptor, PIECE_BYTES):
            self._hash.update(data)
        self.offset = offset

    def append(self, data: bytes) -> None:
        """Adds the next bytes. Raises InvalidRequest beyond the declared size."""
        if self.offset + len(data) > self._size:
            text = f"{self._digest} was declared with {self._size} bytes, but more have come."
            raise InvalidRequest(text, field="blob.size_bytes")
        write_all(self._open_part(), data)
        self._hash.update(data)
        self.offset += len(data)

    def finish(self) -> None:
        """Makes the blob durable and visible. Raises DataLoss, and forgets the bytes, when they are others."""
        if self.offset < self._size:
            raise DataLoss(f"{self._digest} ends at {self.offset} of {self._size} bytes: push the rest.")
        actual = str(self._hash)
        if actual != self._digest:
            self._part.unlink()
            text = f"The pushed bytes have digest {actual}, not {self._digest}: push them again."
            metadata = {"expected": self._digest, "actual": actual}
            raise DataLoss(text, reason=Reason.DIGEST_MISMATCH, metadata=metadata)
        os.fsync(self._open_part())
        self._part.rename(self._target)
        sync(self._target.parent)

    def discard(self) -> None:
        """Forgets what came."""
        self._part.unlink(missing_ok=True)

    def close(self) -> None:
        """Ends a push that may go on later: what came is kept."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open_part(self) -> int:
        assert self._descriptor is not None, "open() comes first"  # noqa: S101  # our own bug
        return self._descriptor
