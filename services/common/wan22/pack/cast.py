"""Reads a safetensors file as if some of its float32 tensors were bfloat16, without making such a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np

from wan22.pack.malformed import MalformedFile
from wan22.pack.safetensors_header import LENGTH_BYTES, SafetensorsHeader, StoredTensor, header_end, parse_header

STEP_BYTES = 4 << 20
"""Read and cast at a time."""


class CastReader:
    """The cast file, to be read in order from its start; the source itself where no tensor is chosen."""

    def __init__(self, source: BinaryIO, source_size: int, chosen: Callable[[StoredTensor], bool]) -> None:
        """Raises MalformedFile for a source that is no safetensors file."""
        prefix = source.read(LENGTH_BYTES)
        raw = prefix + source.read(header_end(prefix, source_size) - len(prefix))
        self.header: SafetensorsHeader = parse_header(raw, source_size)
        self.size = source_size
        self.digest = self.source_digest = hashlib.sha256()
        """Of what has been read of the cast file, and of the source."""
        self._source = source
        self._pieces: Iterator[bytes] | None = None
        self._ready: list[bytes] = []
        cast = {tensor.name for tensor in self.header.tensors if tensor.dtype == "F32" and chosen(tensor)}
        if cast:
            tensors = self.header.tensors
            new = _new_header(raw, tensors, cast)
            self.size = len(new) + sum(_size(tensor, cast) for tensor in tensors)
            self.header = parse_header(new, self.size)
            self.source_digest = hashlib.sha256(raw)
            self._pieces = self._read_all(new, tensors, cast)
        else:
            source.seek(0)

    def read(self, count: int) -> bytes:
        """The next bytes, fewer only at the end. Raises MalformedFile for a source that has become shorter."""
        data = self._source.read(count) if self._pieces is None else self._take(self._pieces, count)
        self.digest.update(data)
        return data

    def _take(self, pieces: Iterator[bytes], count: int) -> bytes:
        have = sum(map(len, self._ready))
        while have < count and (piece := next(pieces, None)) is not None:
            self._ready.append(piece)
            have += len(piece)
        data = b"".join(self._ready)
        self._ready = [data[count:]] if len(data) > count else []
        return data[:count]

    def _read_all(self, header: bytes, tensors: tuple[StoredTensor, ...], cast: set[str]) -> Iterator[bytes]:
        yield header
        for tensor in tensors:
            for begin in range(tensor.begin, tensor.end, STEP_BYTES):
                data = self._source.read(min(STEP_BYTES, tensor.end - begin))
                if len(data) < min(STEP_BYTES, tensor.end - begin):
                    raise MalformedFile(f"it ended inside {tensor.name} while it was packed")
                self.source_digest.update(data)
                yield to_bfloat16(data) if tensor.name in cast else data


def to_bfloat16(data: bytes) -> bytes:
    """Little-endian float32 values as bfloat16, rounded to nearest, ties to even, as torch does it."""
    words = np.frombuffer(data, "<u4")
    rounded = (words + ((words >> 16) & 1) + 0x7FFF) >> 16  # a sum that wraps is a NaN's, which is set below
    return np.where((words & 0x7FFFFFFF) > 0x7F800000, np.uint32(0x7FC0), rounded).astype("<u2").tobytes()


def _size(tensor: StoredTensor, cast: set[str]) -> int:
    return (tensor.end - tensor.begin) // (2 if tensor.name in cast else 1)


def _new_header(raw: bytes, tensors: tuple[StoredTensor, ...], cast: set[str]) -> bytes:
    """The header with its length: same names in the same order, same metadata, other dtypes and offsets."""
    entries, position = json.loads(raw[LENGTH_BYTES:]), 0
    for tensor in tensors:
        entry, size = entries[tensor.name], _size(tensor, cast)
        entry["data_offsets"] = [position, position + size]
        if tensor.name in cast:
            entry["dtype"] = "BF16"
        position += size
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # data starts at a multiple of 8, as the reference writer has it
    return len(text).to_bytes(LENGTH_BYTES, "little") + text
