"""The folder that a gateway process keeps on its own machine, whatever its store is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from wan22.folder_lock import lock_folder


class LocalFolder:
    """Tokenizers, kept over restarts, and the spool of what is being received, which begins empty.

    One process owns it. Raises FailedPrecondition (STORE_IN_USE) when another one does, unless it is the store's own
    folder, whose lock this process holds already.
    """

    def __init__(self, path: Path, store: Path | str) -> None:
        self._lock = None if path == store else lock_folder(path, "scratch folder", "gateway", "--scratch")
        self.tokenizers = path / "tokenizers"
        self.spool = path / "spool"
        shutil.rmtree(self.spool, ignore_errors=True)  # of an earlier process
        self.spool.mkdir()

    def close(self) -> None:
        """Lets another process have it."""
        if self._lock is not None:
            os.close(self._lock)
