"""What a preview may be: bounds that its maker keeps and whoever passes it on checks."""

from __future__ import annotations

import struct

MAX_INTERVAL = 100
"""Steps from one preview to the next: as many as a generation may have."""
MAX_BYTES = 64 << 10
MAX_SIDE = 256
"""Pixels."""
_STILL, _EXTENDED = b"VP8 ", b"VP8X"
_START_CODE = b"\x9d\x01\x2a"
"""Of a VP8 key frame (RFC 6386, section 9.1)."""


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a WebP file says it has (RFC 9649), by its first 30 bytes; None for anything else.

    Nothing is decoded. A lossless still image counts as something else: no preview is one.
    """
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    if struct.unpack("<I", data[4:8])[0] + 8 != len(data):
        return None
    if data[12:16] == _EXTENDED:
        return _int24(data[24:27]) + 1, _int24(data[27:30]) + 1
    if data[12:16] == _STILL and data[23:26] == _START_CODE:
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return None


def _int24(data: bytes) -> int:
    return int.from_bytes(data, "little")
