"""The header of a safetensors file, read strictly. Format: huggingface.co/docs/safetensors."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, BinaryIO

from wan22.pack.malformed import MalformedFile

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100 << 20
"""The reference reader's limit."""
MAX_DIMENSIONS = 64
"""torch's limit."""
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    """First byte in the file."""
    end: int


@dataclass(frozen=True)
class SafetensorsHeader:
    """What a header says, after it has been held against the file's size."""

    tensors: tuple[StoredTensor, ...]
    """In file order; they cover the file from `data_begin` to its end without a gap."""
    data_begin: int
    """Bytes of the header with its length."""


def header_end(prefix: bytes | bytearray, file_size: int) -> int:
    """Where the header ends, by a file's first 8 bytes. Raises MalformedFile."""
    if len(prefix) < LENGTH_BYTES:
        raise MalformedFile(f"it has {file_size} bytes, and a safetensors header begins with {LENGTH_BYTES}")
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if length > min(MAX_HEADER_BYTES, file_size - LENGTH_BYTES):
        raise MalformedFile(f"its safetensors header is said to have {length} bytes, the file has {file_size}")
    return LENGTH_BYTES + length


def read_header(file: BinaryIO, size: int) -> SafetensorsHeader:
    """The header of an open safetensors file. Raises MalformedFile."""
    prefix = file.read(LENGTH_BYTES)
    end = header_end(prefix, size)
    return parse_header(prefix + file.read(end - len(prefix)), size)


def parse_header(raw: bytes, file_size: int) -> SafetensorsHeader:
    """The header of a file that begins with `raw`, which ends where `header_end` says. Raises MalformedFile."""
    tensors = tuple(sorted(_entries(raw), key=lambda tensor: (tensor.begin, tensor.end, tensor.name)))
    end = len(raw)
    for tensor in tensors:
        if tensor.begin != end:
            text = f"tensor {tensor.name!r} starts at {tensor.begin - len(raw)}, but the one before it ends at"
            raise MalformedFile(f"{text} {end - len(raw)}")
        end = tensor.end
    if end != file_size:
        raise MalformedFile(f"its tensors end at {end - len(raw)}, but it has {file_size - len(raw)} bytes of them")
    return SafetensorsHeader(tensors, len(raw))


def _entries(raw: bytes) -> list[StoredTensor]:
    text = raw[LENGTH_BYTES:]
    if not text.startswith(b"{"):
        raise MalformedFile("its safetensors header does not begin with {, so it is no JSON object")
    try:
        header = json.loads(text.decode(), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise MalformedFile(f"its safetensors header is not JSON: {error}") from None
    metadata = header.pop("__metadata__", {})
    if not (isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())):
        raise MalformedFile("its header's __metadata__ has other values than texts")
    return [_entry(name, entry, len(raw)) for name, entry in header.items()]


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names differ: readers disagree about which of two equal names counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it has a name twice")
    return found


def _entry(name: str, entry: Any, data_begin: int) -> StoredTensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        item_bytes = ITEM_BYTES[dtype]
        well_formed = (
            isinstance(shape, list)
            and len(shape) <= MAX_DIMENSIONS
            and all(type(n) is int and 0 <= n < 1 << 63 for n in (*shape, begin, end, end - begin))
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedFile(f"the header's entry of tensor {name!r} is wrong ({error!r})") from None
    if not well_formed:
        raise MalformedFile(f"tensor {name!r} has shape {shape} and offsets {begin} to {end}")
    if end - begin != math.prod(shape) * item_bytes:
        needed = math.prod(shape) * item_bytes
        raise MalformedFile(f"tensor {name!r} has {end - begin} bytes, but {dtype} {shape} needs {needed}")
    return StoredTensor(name, dtype, tuple(shape), data_begin + begin, data_begin + end)
