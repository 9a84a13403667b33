"""Packs a safetensors file."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wan22.pack import planes
from wan22.pack.conversion import Choice, ConvertingReader, keep
from wan22.pack.hashing import digest_of
from wan22.pack.layout import EXTENT_BYTES, Codec, Extent, Layout, aligned, first_offset
from wan22.pack.malformed import MalformedFile
from wan22.pack.ordered import in_order
from wan22.pack.safetensors_header import SafetensorsHeader

WORDS = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1, "F8_E5M2": 1}
"""Bytes of a word of the dtypes whose exponents are worth compressing."""
LEAST_GAIN = 1 / 32
"""What compression must save to be worth decoding."""

_Stored = list[bytes | memoryview]
"""An extent as it is stored, in pieces."""


@dataclass(frozen=True)
class _Piece:
    begin: int
    length: int
    word: int
    """0 where nothing is to be gained."""


def pack_file(source: Path, target: Path, on_bytes: Callable[[int], object], choose: Choice = keep) -> Layout:
    """Writes the pack of a safetensors file; `on_bytes` hears how many bytes of the source have been packed so far.

    Tensors are packed in the form that `choose` says. Holds an extent or two a core in memory. Not durable,
    and half-written where it raises: MalformedFile for a source that is no safetensors file or changes meanwhile, or
    what `on_bytes` raises.
    """
    with source.open("rb") as file, target.open("wb") as out:
        size = os.fstat(file.fileno()).st_size
        reader = ConvertingReader(file, size, choose)
        pieces = _pieces(reader.header)
        extents = []
        offset, done = first_offset(len(pieces)), 0

        def encode(item: tuple[_Piece, bytes]) -> tuple[Extent, _Stored]:
            return _encode(*item)

        for extent, stored in in_order(encode, _read(reader, pieces)):
            out.seek(offset)
            out.writelines(stored)
            extents.append(dataclasses.replace(extent, offset=offset))
            offset = aligned(offset + extent.size)
            done += extent.length
            on_bytes(size * done // reader.size)
        layout = Layout(reader.size, reader.digest.digest(), tuple(extents), offset)
        out.truncate(offset)
        out.seek(0)
        out.write(layout.to_bytes())
    return layout


def _pieces(header: SafetensorsHeader) -> Sequence[_Piece]:
    """What becomes an extent each: neighbours of one word size together, cut where they are too long."""
    spans = [(0, 0, header.data_begin)]
    spans += [(WORDS.get(tensor.dtype, 0), tensor.begin, tensor.end) for tensor in header.tensors]
    pieces = []
    for word, run in itertools.groupby(spans, key=lambda span: span[0]):
        members = list(run)
        begin, end = members[0][1], members[-1][2]
        pieces += [_Piece(at, min(EXTENT_BYTES, end - at), word) for at in range(begin, end, EXTENT_BYTES)]
    return pieces


def _read(file: ConvertingReader, pieces: Sequence[_Piece]) -> Iterator[tuple[_Piece, bytes]]:
    for piece in pieces:
        data = file.read(piece.length)
        if len(data) < piece.length:
            raise MalformedFile(f"it ended at {piece.begin + len(data)} while it was packed")
        yield piece, data


def _encode(piece: _Piece, data: bytes) -> tuple[Extent, _Stored]:
    stored: _Stored = [data]
    codec, size = Codec.NONE, len(data)
    if piece.word:
        smaller = planes.encode(data, piece.word)
        packed = sum(map(len, smaller))
        if packed <= size * (1 - LEAST_GAIN):
            stored, codec, size = smaller, Codec.PLANES_ZSTD, packed
    word = piece.word if codec else 1
    return Extent(0, size, piece.begin, piece.length, codec, word, digest_of(*stored)), stored
