"""Makes zstd frames that are Huffman-coded and nothing else: exponents of weights have no repeats worth a search.

zstd codes no literals where it is told to skip its search, unless a parameter says so, which of zstandard's two
interfaces only the one by cffi has.
"""

from __future__ import annotations

from typing import Any

from zstandard.backend_cffi import ffi, lib  # type: ignore[attr-defined]  # it says of nothing that it exports it

_PARAMETERS = {
    lib.ZSTD_c_strategy: lib.ZSTD_fast,
    lib.ZSTD_c_targetLength: 128 << 10,  # from one place that is looked at to the next: a whole block
    lib.ZSTD_c_minMatch: 7,
    lib.ZSTD_c_hashLog: 6,
    lib.ZSTD_c_windowLog: 17,
    lib.ZSTD_c_literalCompressionMode: 1,  # ZSTD_ps_enable
    lib.ZSTD_c_contentSizeFlag: 1,
}


class FrameCompressor:
    """Compresses one frame after the other, for one thread at a time."""

    def __init__(self) -> None:
        self._context: Any = ffi.gc(lib.ZSTD_createCCtx(), lib.ZSTD_freeCCtx)
        if self._context == ffi.NULL:
            raise MemoryError("zstd has no memory for a context")
        for parameter, value in _PARAMETERS.items():
            _check(lib.ZSTD_CCtx_setParameter(self._context, parameter, value))

    def compress(self, source: memoryview, target: memoryview) -> int | None:
        """Writes a frame with its content size, without Python's lock; returns its bytes.

        None where there is no room for it and the up to 8 bytes after it that zstd may write on its way.
        """
        begin, end = ffi.from_buffer(target, require_writable=True), ffi.from_buffer(source)
        size: int = lib.ZSTD_compress2(self._context, begin, len(target), end, len(source))
        if lib.ZSTD_getErrorCode(size) == lib.ZSTD_error_dstSize_tooSmall:
            return None
        return _check(size)


def _check(result: int) -> int:
    if lib.ZSTD_isError(result):
        raise RuntimeError(f"zstd: {ffi.string(lib.ZSTD_getErrorName(result)).decode()}")
    return result
