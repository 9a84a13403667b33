"""One process a folder: a lock file that names its holder and ends with it, even by kill -9."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from wan22.errors import FailedPrecondition, Reason


def lock_folder(folder: Path, kind: str, program: str, flag: str) -> int:
    """Makes the folder, locks it, and returns the descriptor to close in the end.

    Raises FailedPrecondition (STORE_IN_USE) naming the process that holds it. `kind` is what the folder is to a reader,
    `program` who would hold it, `flag` the setting that names another folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 64).decode().strip() or "unknown"
        os.close(lock)
        text = f"The {kind} {folder} belongs to the running {program} with process id {holder}"
        text += f": stop it, or use another {flag}."
        raise FailedPrecondition(text, reason=Reason.STORE_IN_USE, metadata={"holder": holder}) from None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock
