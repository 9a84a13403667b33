"""Writes a large new file past the page cache, which has better use of the memory than what is not read again soon."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from wan22.pack.layout import aligned


class PageWriter:
    """A file that is written whole pages at a time, in any order; use as a context manager.

    Where the file system has no direct writes (O_DIRECT), they go through the page cache. Its methods may run in
    several threads.
    """

    def __init__(self, path: Path) -> None:
        """Makes the file, or empties it."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            self._descriptor = os.open(path, flags | os.O_DIRECT, 0o644)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._descriptor = os.open(path, flags, 0o644)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def write(self, offset: int, buffer: memoryview, length: int) -> None:
        """Writes the buffer's first bytes and zeros up to a whole page, which the buffer has room for.

        Offset and buffer lie at multiples of ALIGNMENT. Raises OSError.
        """
        end = aligned(length)
        buffer[length:end] = bytes(end - length)
        done = 0
        while done < end:
            try:
                done += os.pwrite(self._descriptor, buffer[done:end], offset + done)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._is_direct():
                    raise
                self._end_direct()

    def _is_direct(self) -> bool:
        return bool(fcntl.fcntl(self._descriptor, fcntl.F_GETFL) & os.O_DIRECT)

    def _end_direct(self) -> None:
        """For a disk of larger blocks than a page, and for a write that was cut in the middle of one."""
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
