"""Weights as 8-bit floating point (E4M3, finite values only), each row with a scale of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wan22.pack.malformed import MalformedFile

LARGEST = np.float32(448)
"""The largest finite number of E4M3."""
READABLE = ("F32", "BF16", "F16")
"""Dtypes that can be quantised."""
_BLOCK = 1 << 15
"""Values at a time, so that the steps between stay in the processor's cache."""
_SMALLEST_NORMAL = np.uint32(0x3C800000)
"""2^-6, as the bits of a float32."""
_SUBNORMAL_MAGIC = np.float32(16384)
"""Added to a number, leaves multiples of 2^-9, E4M3's smallest step, in the float32's lowest bits."""


def as_float32(data: bytes | memoryview, dtype: str) -> NDArray[np.float32]:
    """The values of a tensor of one of READABLE."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, {"F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float32, copy=False)


def quantise_rows(rows: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Rows (n, k) as E4M3 (n, k) and float32 scales (n,): row i is about data[i] * scale[i].

    The largest magnitude of a row becomes 448; a row of zeros has the scale 1. Rounds to nearest, ties to even, to the
    bits that torch has. Raises MalformedFile for values that are not finite.
    """
    scales: NDArray[np.float32] = np.abs(rows).max(axis=1, initial=0) / LARGEST
    if not np.isfinite(scales).all():
        raise MalformedFile("it has values that are not finite")
    scales[scales == 0] = 1
    data = np.empty(rows.shape, np.uint8)
    step = max(1, _BLOCK // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        data[part] = to_e4m3(rows[part] / scales[part, None])
    return data, scales


def to_e4m3(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The nearest E4M3 values of numbers in [-448, 448], ties to even, as their bits."""
    bits = values.view(np.uint32)
    magnitude = bits & np.uint32(0x7FFFFFFF)
    rounded: NDArray[Any] = magnitude >> np.uint32(20)
    rounded &= np.uint32(1)
    rounded += magnitude
    rounded += np.uint32(0x7FFFF)
    rounded >>= np.uint32(20)
    rounded -= np.uint32((127 - 7) << 3)
    small = magnitude < _SMALLEST_NORMAL
    if small.any():
        steps = (magnitude[small].view(np.float32) + _SUBNORMAL_MAGIC).view(np.uint32)
        rounded[small] = steps & np.uint32(0xFF)
    rounded |= (bits >> np.uint32(24)) & np.uint32(0x80)
    return rounded.astype(np.uint8)
