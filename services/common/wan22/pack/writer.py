"""Packs a safetensors file."""

from __future__ import annotations

import dataclasses
import itertools
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from wan22.pack import planes
from wan22.pack.conversion import Choice, Converted, keep
from wan22.pack.hashing import digest_of, hasher
from wan22.pack.layout import EXTENT_BYTES, Codec, Extent, Layout, aligned, first_offset
from wan22.pack.ordered import in_order
from wan22.pack.page_writer import PageWriter
from wan22.pack.safetensors_header import SafetensorsHeader

WORDS = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1, "F8_E5M2": 1}
"""Bytes of a word of the dtypes whose exponents are worth compressing."""
LEAST_GAIN = 1 / 32
"""What compression must save to be worth decoding."""
WRITES = 2
"""At once: a disk is seldom at its full speed with one."""


@dataclass(frozen=True)
class _Piece:
    begin: int
    length: int
    word: int
    """0 where nothing is to be gained."""


class _Room:
    """What one extent is packed in. Used again for another, since fresh memory costs as much time as compression."""

    def __init__(self) -> None:
        pages = mmap.mmap(-1, 2 * EXTENT_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        pages.madvise(mmap.MADV_HUGEPAGE)  # a fault for 2 MiB, where it would be one for 4 KiB
        view = memoryview(pages)
        self.source, self.stored = view[:EXTENT_BYTES], view[EXTENT_BYTES:]


@dataclass(frozen=True)
class _Packed:
    room: _Room
    extent: Extent
    """At no offset yet."""
    stored: memoryview
    """Begins with the extent as it is stored."""


def pack_file(source: Path, target: Path, on_bytes: Callable[[int], object], choose: Choice = keep) -> Layout:
    """Writes the pack of a safetensors file; `on_bytes` hears how many bytes of the source have been packed so far.

    Tensors are packed in the form that `choose` says, in threads (`wan22.pack.ordered`). Holds an extent or two a
    thread in memory. Not durable, and half-written where it raises: MalformedFile for a source that is no safetensors
    file or changes meanwhile, or what `on_bytes` raises.
    """
    with source.open("rb") as file, PageWriter(target) as out, ThreadPoolExecutor(WRITES, "pack-write") as writers:
        size = os.fstat(file.fileno()).st_size
        converted = Converted(file, size, choose)
        pieces = _pieces(converted.header)
        extents: list[Extent] = []
        offset, done, digest = first_offset(len(pieces)), 0, hasher()
        free: list[_Room] = []
        writing: deque[tuple[Future[None], _Room]] = deque()
        for packed in _pack_all(converted, pieces, free):
            digest.update(packed.room.source[: packed.extent.length])
            if len(writing) == WRITES:
                _free_oldest(writing, free)
            writing.append((writers.submit(out.write, offset, packed.stored, packed.extent.size), packed.room))
            extents.append(dataclasses.replace(packed.extent, offset=offset))
            offset = aligned(offset + packed.extent.size)
            done += packed.extent.length
            on_bytes(size * done // converted.size)
        while writing:
            _free_oldest(writing, free)
        layout = Layout(converted.size, digest.digest(), tuple(extents), offset)
        _write_begin(out, layout)
    return layout


def _free_oldest(writing: deque[tuple[Future[None], _Room]], free: list[_Room]) -> None:
    future, room = writing.popleft()
    future.result()
    free.append(room)


def _write_begin(out: PageWriter, layout: Layout) -> None:
    begin = layout.to_bytes()
    with mmap.mmap(-1, aligned(len(begin))) as pages, memoryview(pages) as view:
        view[: len(begin)] = begin
        out.write(0, view, len(begin))


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


def _pack_all(converted: Converted, pieces: Sequence[_Piece], free: list[_Room]) -> Iterator[_Packed]:
    """Packs all in order; takes the rooms that are free, and makes more where none is."""

    def pack(item: tuple[_Piece, _Room]) -> _Packed:
        return _pack(converted, *item)

    def with_rooms(some: Sequence[_Piece]) -> Iterator[tuple[_Piece, _Room]]:
        for piece in some:
            yield piece, free.pop() if free else _Room()

    early = [piece for piece in pieces if piece.begin + piece.length <= converted.scales_begin]
    yield from in_order(pack, with_rooms(early))
    yield from in_order(pack, with_rooms(pieces[len(early) :]))  # whose scales are known now


def _pack(converted: Converted, piece: _Piece, room: _Room) -> _Packed:
    source = room.source[: piece.length]
    converted.read(piece.begin, source)
    stored, codec, size = room.source, Codec.NONE, piece.length
    if piece.word:
        smaller = planes.encode(source, piece.word, room.stored[: int(piece.length * (1 - LEAST_GAIN))])
        if smaller is not None:
            stored, codec, size = room.stored, Codec.PLANES_ZSTD, smaller
    word = piece.word if codec else 1
    return _Packed(room, Extent(0, size, piece.begin, piece.length, codec, word, digest_of(stored[:size])), stored)
