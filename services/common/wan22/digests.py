"""SHA-256 digests as OCI writes them, of bytes and of files of any size."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

PIECE_BYTES = 16 << 20
"""Hashed at a time: a cancelled caller waits for one piece, some 10 ms."""


class Sha256:
    """A digest that grows with its bytes; `str` writes it as sha256:{64 hex digits}."""

    def __init__(self, data: bytes = b"") -> None:
        self._hash = hashlib.sha256(data)

    def update(self, data: bytes) -> None:
        """Adds the next bytes."""
        self._hash.update(data)

    def __str__(self) -> str:
        return "sha256:" + self._hash.hexdigest()


async def digest_file(path: Path, *, on_bytes: Callable[[int], object] | None = None) -> Sha256:
    """The digest of a file's content, hashed in a thread; `on_bytes` gets the bytes hashed so far.

    Raises FileNotFoundError.
    """
    digest, position = Sha256(), 0
    with await asyncio.to_thread(path.open, "rb", buffering=0) as file:

        def next_piece() -> int:
            data = file.read(PIECE_BYTES)
            digest.update(data)
            return len(data)

        while count := await asyncio.to_thread(next_piece):
            position += count
            if on_bytes:
                on_bytes(position)
    return digest
