"""Reads a file out of the page cache where it lies there, else directly from the disk."""

from __future__ import annotations

import ctypes
import functools
import logging
import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from wan22.pack.layout import ALIGNMENT, aligned

log = logging.getLogger(__name__)
READ_BYTES = 4 << 20
"""Of one read where not all is cached: enough for a disk's full speed, and what is asked of the page cache then."""
PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_CACHESTAT = 451
"""Of the system call, which the C library has had no function for; Linux 6.5, linux/mman.h."""


class _Range(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint64), ("length", ctypes.c_uint64)]  # ctypes' way


class _Cached(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("cache", "dirty", "writeback", "evicted", "recently_evicted")]


class FileReader:
    """An open file; use as a context manager. Its methods may run in several threads.

    A direct read (O_DIRECT) takes a third of the CPU's time of one through the page cache, and leaves in the cache what
    is there. Whether bytes are cached is asked by cachestat, else by mincore, which looks at each page on its own:
    preadv2 with RWF_NOWAIT would start reading them in.
    """

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._descriptor).st_size
        self._map = mmap.mmap(self._descriptor, self.size, prot=mmap.PROT_READ) if self.size else None
        self._address = 0 if self._map is None else np.frombuffer(self._map, np.uint8).ctypes.data
        self._direct = self._open_direct()
        self._direct_works = self._direct is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        if self._direct is not None:
            os.close(self._direct)
        if self._map is not None:
            self._map.close()

    def read(self, offset: int, buffer: memoryview) -> int:
        """Fills the buffer, or as much of it as the file reaches, and returns how many bytes came from the disk itself.

        Direct reads need an offset and a buffer at multiples of ALIGNMENT, and may fill the buffer up to one; else, and
        where the file system refuses them, all goes through the page cache. Raises OSError, EOFError for a file that
        has become shorter.
        """
        wanted, done, direct = min(len(buffer), self.size - offset), 0, 0
        at_once = not self._direct_works or self.is_cached(offset, wanted)
        while done < wanted:
            length = wanted - done if at_once else min(READ_BYTES, wanted - done)
            count = 0
            if not at_once and self._direct_works and not self.is_cached(offset + done, length):
                count = self._read_directly(offset + done, buffer[done : done + aligned(length)])
                direct += count
            if count == 0:
                count = os.preadv(self._descriptor, [buffer[done : done + length]], offset + done)
            if count == 0:
                raise EOFError(f"{self.path} ended at {offset + done} of {self.size} bytes")
            done += count
        return min(direct, wanted)

    def is_cached(self, offset: int, length: int) -> bool:
        """Whether all these bytes are in the page cache; true as well where the kernel does not tell."""
        begin = offset // PAGE * PAGE
        pages = -(-(offset + length - begin) // PAGE)
        if not pages or (counted := _count_cached(self._descriptor, begin, offset + length - begin)) == pages:
            return True
        if counted is not None:
            return False
        found = np.zeros(pages, np.uint8)
        asked = ctypes.c_void_p(self._address + begin), ctypes.c_size_t(offset + length - begin)
        if _libc.mincore(*asked, ctypes.c_void_p(found.ctypes.data)) != 0:
            _tell(f"the page cache cannot be asked about {self.path.parent}: {os.strerror(ctypes.get_errno())}")
            return True
        return bool((found & 1).all())

    def _open_direct(self) -> int | None:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError as error:
            _tell(f"{self.path.parent} has no direct reads: {error.strerror}")
            return None

    def _read_directly(self, offset: int, buffer: memoryview) -> int:
        """How many bytes came; 0 where this way is shut."""
        address = np.frombuffer(buffer, np.uint8).ctypes.data
        length = len(buffer) // ALIGNMENT * ALIGNMENT
        if self._direct is None or offset % ALIGNMENT or address % ALIGNMENT or not length:
            return 0
        try:
            return os.preadv(self._direct, [buffer[:length]], offset)
        except OSError as error:
            _tell(f"{self.path.parent} has no direct reads: {error.strerror}")
            self._direct_works = False
            return 0


def _count_cached(descriptor: int, offset: int, length: int) -> int | None:
    """Pages of a part of a file that are in the page cache; None where the kernel does not tell in this way."""
    part, found = _Range(offset, length), _Cached()
    asked = ctypes.byref(part), ctypes.byref(found), ctypes.c_uint(0)
    refused = _libc.syscall(ctypes.c_long(_CACHESTAT), ctypes.c_uint(descriptor), *asked)
    return None if refused else int(found.cache)


@functools.cache
def _tell(reason: str) -> None:
    """Logs a fallback once."""
    log.warning("Weights are read through the page cache, since %s.", reason)
