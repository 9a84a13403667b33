"""A pack with damage that nothing but a digest finds."""

from __future__ import annotations

from pathlib import Path

from wan22.pack.layout import Codec, Extent
from wan22.pack.planes import frame_lengths
from wan22.pack.reader import PackedFile


def damage_plane(packed: Path, target: Path) -> Extent:
    """Writes the pack with one bit of a weight's mantissa changed, in its last extent that keeps mantissas as they are.

    The changed extent decodes, to one value that is another one, in its middle. Returns the extent. Raises ValueError
    for a pack without such an extent: words of one byte are frames and nothing else.
    """
    with PackedFile(packed) as pack:
        extents = [extent for extent in pack.layout.extents if extent.codec is Codec.PLANES_ZSTD and extent.word > 1]
    if not extents:
        raise ValueError(f"{packed} has no extent with planes")
    extent = extents[-1]
    content = bytearray(packed.read_bytes())
    words = extent.length // extent.word
    lowest = extent.offset + words // 2  # in the lowest plane, which is as long as there are words
    stored = memoryview(content)[extent.offset : extent.offset + extent.size]
    begin, lengths = frame_lengths(stored, extent.length, extent.word)
    if lowest - extent.offset >= begin - 4 * len(lengths):
        raise ValueError(f"{packed} has no plane where its layout says so")
    content[lowest] ^= 2  # its lowest bit is the sign, the next one the mantissa's lowest
    target.write_bytes(content)
    return extent
