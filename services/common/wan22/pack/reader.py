"""Reads a pack: extent by extent, each against its digest, or back into the safetensors file it was made of."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from wan22.pack import planes
from wan22.pack.hashing import digest_of, hasher
from wan22.pack.layout import Codec, Extent, Layout, parse_layout, read_count, table_end
from wan22.pack.malformed import MalformedFile
from wan22.pack.ordered import in_order
from wan22.pack.safetensors_header import LENGTH_BYTES, SafetensorsHeader, header_end, parse_header

PREFIX_BYTES = 64


class PackedFile:
    """An open pack; use as a context manager. Its methods may run in several threads."""

    layout: Layout

    def __init__(self, path: Path) -> None:
        """Raises MalformedFile for a file whose header or table is damaged, FileNotFoundError."""
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(self._descriptor).st_size
            count = read_count(os.pread(self._descriptor, PREFIX_BYTES, 0), size)
            self.layout = parse_layout(os.pread(self._descriptor, table_end(count), 0), size)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def safetensors_header(self) -> SafetensorsHeader:
        """The source's header, held against its size. Raises MalformedFile."""
        raw, size = bytearray(), self.layout.source_size
        for extent in self.layout.extents:
            raw += self.decode(extent)
            if len(raw) >= (end := header_end(raw[:LENGTH_BYTES], size)):
                return parse_header(bytes(raw[:end]), size)
        raise MalformedFile(f"its source has {size} bytes, which hold no safetensors header")

    def decode(self, extent: Extent) -> bytes | memoryview:
        """An extent's bytes of the source. Raises MalformedFile naming the extent when they are not what was packed."""
        stored = os.pread(self._descriptor, extent.size, extent.offset)
        check_extent(extent, stored)
        return decode_extent(extent, stored)

    def decode_all(self) -> Generator[tuple[Extent, bytes | memoryview], None, None]:
        """Every extent in order, decoded in threads; few are in memory at a time. Raises MalformedFile."""

        def decode(extent: Extent) -> tuple[Extent, bytes | memoryview]:
            return extent, self.decode(extent)

        return in_order(decode, self.layout.extents)


class SourceStream:
    """The source of a pack from its start on, to be read in order as a file is."""

    def __init__(self, extents: Iterator[tuple[Extent, bytes | memoryview]]) -> None:
        self._extents = extents
        self._rest = memoryview(b"")

    def skip(self, count: int) -> None:
        """Goes on that many bytes later."""
        while count and self._fill():
            step = min(count, len(self._rest))
            self._rest, count = self._rest[step:], count - step

    def readinto(self, buffer: memoryview) -> int:
        """Fills the buffer's begin and returns how many bytes it got; 0 at the end."""
        if not self._fill():
            return 0
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def _fill(self) -> bool:
        if not self._rest:
            self._rest = next((memoryview(data) for _, data in self._extents), self._rest)
        return bool(self._rest)


def unpack_file(packed: Path, target: Path, on_bytes: Callable[[int], object]) -> None:
    """Writes the safetensors file that was packed, byte for byte; `on_bytes` hears how many bytes are written so far.

    Not durable, and half-written where it raises: MalformedFile for a damaged pack.
    """
    digest, done = hasher(), 0
    with PackedFile(packed) as pack, target.open("wb") as out:
        for _, data in pack.decode_all():
            out.write(data)
            digest.update(data)
            done += len(data)
            on_bytes(done)
        if digest.digest() != pack.layout.source_digest:
            expected = pack.layout.source_digest.hex()
            raise MalformedFile(f"it unpacks to blake3:{digest.hexdigest()}, and was made of blake3:{expected}")


def check_extent(extent: Extent, stored: bytes | memoryview) -> None:
    """Holds an extent's stored bytes against its digest. Raises MalformedFile naming the extent."""
    actual = digest_of(stored)
    if actual != extent.digest:
        text = f"{name_of(extent)} has digest blake3:{actual.hex()}, not blake3:{extent.digest.hex()}"
        raise MalformedFile(text)


def decode_extent(extent: Extent, stored: bytes | memoryview) -> bytes | memoryview:
    """An extent's bytes of the source. Raises MalformedFile naming the extent when they cannot be decoded."""
    if extent.codec is Codec.NONE:
        return stored
    try:
        return planes.decode(stored, extent.length, extent.word)
    except MalformedFile as error:
        raise MalformedFile(f"{name_of(extent)} is none of {extent.codec.name}: {error}") from None


def name_of(extent: Extent) -> str:
    """How errors call an extent."""
    return f"the extent at {extent.offset} (bytes {extent.begin} to {extent.begin + extent.length} of the source)"
