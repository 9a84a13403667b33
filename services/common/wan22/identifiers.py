"""Identifiers that sort by when they were made, so that an index of them grows at its end and not everywhere."""

from __future__ import annotations

import os
import time
import uuid

_RANDOM_BYTES = 10
_VERSION, _VARIANT = 76, 62
"""Where their bits stand, of 4 and 2."""


def uuid7() -> str:
    """A UUID of version 7 (RFC 9562): milliseconds since 1970, then 74 random bits."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(_RANDOM_BYTES), "big")
    value &= ~(0b1111 << _VERSION | 0b11 << _VARIANT)
    return str(uuid.UUID(int=value | 7 << _VERSION | 0b10 << _VARIANT))
