"""The bytes of a pack around its extents: header, table, alignment. Integers are little-endian.

header   64 bytes: magic, version, number of extents, bytes of the source, bytes of the pack, BLAKE3 of the source
table    72 bytes an extent: offset, stored bytes, begin and length in the source, codec, word, BLAKE3 as stored
seal     BLAKE3 of header and table
extents  each at a multiple of 4,096, zeros between; the pack ends at one too
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from wan22.pack.hashing import DIGEST_BYTES, digest_of
from wan22.pack.malformed import MalformedFile

PACKED_SUFFIX = ".safetensors.pack"
"""Ending of a packed file's path; without `.pack` it is the source's path."""
MAGIC = b"WAN22PCK"
VERSION = 2
"""Version 1 had SHA-256 in place of BLAKE3."""
ALIGNMENT = 4096
"""What direct I/O asks for, on any disk met so far."""
EXTENT_BYTES = 8 << 20
"""Most of the source that one extent holds: enough for a disk's full speed, small enough to have many in flight."""
MAX_EXTENTS = 1 << 22
"""32 TiB of source."""
_HEADER = struct.Struct("<8sIIQQ32s")
_ENTRY = struct.Struct("<QQQQII32s")
SEAL_BYTES = DIGEST_BYTES


class Codec(IntEnum):
    """How an extent is stored."""

    NONE = 0
    """As it is."""
    PLANES_ZSTD = 1
    """Words taken apart: `wan22.pack.planes`."""


@dataclass(frozen=True)
class Extent:
    """A piece of the source and where it is stored."""

    offset: int
    """First byte in the pack, a multiple of ALIGNMENT."""
    size: int
    """Bytes as stored."""
    begin: int
    """First byte in the source."""
    length: int
    """Bytes in the source."""
    codec: Codec
    word: int
    """Bytes of a word; 1 with Codec.NONE."""
    digest: bytes
    """BLAKE3 of the bytes as stored."""


@dataclass(frozen=True)
class Layout:
    """Header and table of a pack."""

    source_size: int
    source_digest: bytes
    """BLAKE3."""
    extents: tuple[Extent, ...]
    """In the source's order, which they cover without a gap; also the order to load in."""
    size: int
    """Bytes of the pack."""

    def to_bytes(self) -> bytes:
        """What stands before the extents, but for the zeros."""
        header = _HEADER.pack(MAGIC, VERSION, len(self.extents), self.source_size, self.size, self.source_digest)
        table = [_ENTRY.pack(e.offset, e.size, e.begin, e.length, e.codec, e.word, e.digest) for e in self.extents]
        raw = b"".join([header, *table])
        return raw + digest_of(raw)


def aligned(position: int) -> int:
    """The next position where an extent may start."""
    return -(-position // ALIGNMENT) * ALIGNMENT


def first_offset(count: int) -> int:
    """Where the first of so many extents starts."""
    return aligned(table_end(count))


def table_end(count: int) -> int:
    """Bytes of header, table and seal."""
    return _HEADER.size + count * _ENTRY.size + SEAL_BYTES


def read_count(prefix: bytes, file_size: int) -> int:
    """The number of extents, by a file's first bytes. Raises MalformedFile when it cannot be a pack."""
    if len(prefix) < _HEADER.size or prefix[: len(MAGIC)] != MAGIC:
        raise MalformedFile(f"it does not begin with a pack's header of {_HEADER.size} bytes")
    _, version, count, *_ = _HEADER.unpack(prefix[: _HEADER.size])
    if version != VERSION:
        advice = "update it" if version > VERSION else "import the model again"
        raise MalformedFile(f"its format has version {version}, and this program knows {VERSION}: {advice}")
    if not 0 < count <= MAX_EXTENTS or first_offset(count) > file_size:
        raise MalformedFile(f"it claims {count} extents in {file_size} bytes")
    return int(count)


def parse_layout(raw: bytes, file_size: int) -> Layout:
    """Header and table of a file that begins with `raw`, `table_end` bytes. Raises MalformedFile naming the extent."""
    count = read_count(raw, file_size)
    body, seal = raw[: table_end(count) - SEAL_BYTES], raw[table_end(count) - SEAL_BYTES : table_end(count)]
    if digest_of(body) != seal:
        raise MalformedFile("its header and table do not have the digest that stands behind them")
    _, _, _, source_size, size, source_digest = _HEADER.unpack(body[: _HEADER.size])
    if size != file_size:
        raise MalformedFile(f"its header says {size} bytes, the file has {file_size}")
    fields = list(_ENTRY.iter_unpack(body[_HEADER.size :]))
    for number, (*_, codec, word, _) in enumerate(fields):
        _check_codec(number, codec, word)
    extents = tuple(Extent(o, s, b, n, Codec(codec), word, digest) for o, s, b, n, codec, word, digest in fields)
    _check_places(extents, source_size, file_size)
    return Layout(source_size, source_digest, extents, size)


def _check_codec(number: int, codec: int, word: int) -> None:
    if (codec, word) not in {(Codec.NONE, 1), *((Codec.PLANES_ZSTD, word) for word in (1, 2, 4))}:
        raise MalformedFile(f"extent {number} has codec {codec} with words of {word} bytes, which this program lacks")


def _check_places(extents: Sequence[Extent], source_size: int, file_size: int) -> None:
    offset, begin = first_offset(len(extents)), 0
    for number, extent in enumerate(extents):
        if (extent.offset, extent.begin) != (offset, begin):
            text = (
                f"extent {number} is said to hold byte {extent.begin} at {extent.offset}, where byte {begin} belongs at"
            )
            raise MalformedFile(f"{text} {offset}")
        if not 0 < extent.length <= EXTENT_BYTES or extent.length % extent.word:
            raise MalformedFile(
                f"extent {number} is said to decode to {extent.length} bytes, of at most {EXTENT_BYTES}"
            )
        smaller = extent.size < extent.length if extent.codec else extent.size == extent.length
        if not smaller or extent.size <= 0:
            text = f"extent {number} ({extent.codec.name}) is said to have {extent.size} bytes for {extent.length}"
            raise MalformedFile(text)
        offset, begin = aligned(offset + extent.size), begin + extent.length
    if begin != source_size:
        raise MalformedFile(f"its extents decode to {begin} bytes, the source has {source_size}")
    if offset != file_size:
        raise MalformedFile(f"its extents end at {offset}, the file has {file_size} bytes")
