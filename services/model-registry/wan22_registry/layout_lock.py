"""One registry process a layout."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wan22.errors import FailedPrecondition, Reason


@contextmanager
def own(root: Path) -> Iterator[None]:
    """Holds the layout while the context lasts. Raises FailedPrecondition (STORE_IN_USE) naming the holder."""
    root.mkdir(parents=True, exist_ok=True)
    lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 64).decode().strip() or "unknown"
            text = f"The layout {root} belongs to the running registry with process id {holder}"
            text += ": stop it, or use another --root."
            raise FailedPrecondition(text, reason=Reason.STORE_IN_USE, metadata={"holder": holder}) from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(lock)
