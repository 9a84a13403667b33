"""Reads a safetensors file as if some of its tensors were of fewer bits, without making such a file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import BinaryIO

import numpy as np

from wan22.pack.hashing import hasher
from wan22.pack.malformed import MalformedFile
from wan22.pack.quantise import READABLE, as_float32, quantise_rows
from wan22.pack.safetensors_header import LENGTH_BYTES, SafetensorsHeader, StoredTensor, header_end, parse_header

STEP_BYTES = 4 << 20
"""Read and converted at a time; a row that is quantised may have more."""
LONGEST_ROW = 64 << 20
"""Bytes: far more than any model's, little enough to hold."""
SCALE_SUFFIX = "_scale"
"""Of the name of a quantised tensor's scales."""


class Form(Enum):
    """What becomes of a tensor."""

    AS_IS = "as it is"
    BFLOAT16 = "float32 to bfloat16"
    FLOAT8 = "a matrix to float8 with a scale a row (`wan22.pack.quantise`)"


Choice = Callable[[StoredTensor], Form]


def keep(_: StoredTensor) -> Form:
    """Converts nothing."""
    return Form.AS_IS


class ConvertingReader:
    """The converted file, to be read in order from its start; the source itself where nothing is converted.

    Its tensors are in the source's order. The scales of quantised ones come after all others, being known last.
    """

    def __init__(self, source: BinaryIO, source_size: int, choose: Choice) -> None:
        """Raises MalformedFile for a source that is no safetensors file."""
        prefix = source.read(LENGTH_BYTES)
        raw = prefix + source.read(header_end(prefix, source_size) - len(prefix))
        self.header: SafetensorsHeader = parse_header(raw, source_size)
        self.size = source_size
        self.digest = hasher()
        """Of what has been read of the converted file."""
        self._source = source
        self._pieces: Iterator[bytes] | None = None
        self._ready: list[bytes] = []
        forms = {tensor.name: form for tensor in self.header.tensors if (form := choose(tensor)) is not Form.AS_IS}
        if forms:
            _check(self.header, forms)
            tensors = self.header.tensors
            new = _new_header(raw, tensors, forms)
            last = max(
                end for entry in json.loads(new[LENGTH_BYTES:]).values() for end in entry.get("data_offsets", [0])
            )
            self.size = len(new) + last
            self.header = parse_header(new, self.size)
            self._pieces = self._read_all(new, tensors, forms)
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

    def _read_all(self, header: bytes, tensors: tuple[StoredTensor, ...], forms: Mapping[str, Form]) -> Iterator[bytes]:
        yield header
        all_scales = []
        for tensor in tensors:
            form = forms.get(tensor.name, Form.AS_IS)
            row = _row_bytes(tensor) if form is Form.FLOAT8 else 1
            for data in self._steps(tensor, max(1, STEP_BYTES // row) * row):
                if form is Form.AS_IS:
                    yield data
                elif form is Form.BFLOAT16:
                    yield to_bfloat16(data)
                else:
                    try:
                        eights, scales = quantise_rows(as_float32(data, tensor.dtype).reshape(-1, tensor.shape[1]))
                    except MalformedFile as error:
                        raise MalformedFile(f"tensor {tensor.name!r} cannot be quantised: {error}") from None
                    yield eights.tobytes()
                    all_scales.append(scales.astype("<f4").tobytes())
        yield b"".join(all_scales)

    def _steps(self, tensor: StoredTensor, step: int) -> Iterator[bytes]:
        for begin in range(tensor.begin, tensor.end, step):
            wanted = min(step, tensor.end - begin)
            data = self._source.read(wanted)
            if len(data) < wanted:
                raise MalformedFile(f"it ended inside {tensor.name} while it was packed")
            yield data


def to_bfloat16(data: bytes) -> bytes:
    """Little-endian float32 values as bfloat16, rounded to nearest, ties to even, as torch does it."""
    words = np.frombuffer(data, "<u4")
    rounded = (words + ((words >> 16) & 1) + 0x7FFF) >> 16  # a sum that wraps is a NaN's, which is set below
    return np.where((words & 0x7FFFFFFF) > 0x7F800000, np.uint32(0x7FC0), rounded).astype("<u2").tobytes()


def _row_bytes(tensor: StoredTensor) -> int:
    return (tensor.end - tensor.begin) // max(1, tensor.shape[0])


def _new_size(tensor: StoredTensor, forms: Mapping[str, Form]) -> int:
    """Bytes of a tensor once it is converted, and of its scales."""
    form = forms.get(tensor.name, Form.AS_IS)
    if form is Form.FLOAT8:
        return math.prod(tensor.shape) + 4 * tensor.shape[0]
    return (tensor.end - tensor.begin) // (2 if form is Form.BFLOAT16 else 1)


def _check(header: SafetensorsHeader, forms: Mapping[str, Form]) -> None:
    """Raises MalformedFile for a tensor that cannot become what was chosen."""
    names = {tensor.name for tensor in header.tensors}
    for tensor in header.tensors:
        form = forms.get(tensor.name, Form.AS_IS)
        if form is Form.BFLOAT16 and tensor.dtype != "F32":
            raise MalformedFile(f"tensor {tensor.name!r} is {tensor.dtype}, where F32 is cast to bfloat16")
        if form is not Form.FLOAT8:
            continue
        if tensor.dtype not in READABLE or len(tensor.shape) != 2 or 0 in tensor.shape:
            text = f"tensor {tensor.name!r} is {tensor.dtype} {list(tensor.shape)}, where a matrix is quantised"
            raise MalformedFile(f"{text} of {', '.join(READABLE)}")
        if _row_bytes(tensor) > LONGEST_ROW:
            raise MalformedFile(f"tensor {tensor.name!r} has rows of {_row_bytes(tensor)} bytes, at most {LONGEST_ROW}")
        if tensor.name + SCALE_SUFFIX in names:
            raise MalformedFile(f"tensor {tensor.name!r} has a scale already, and is no float8")


def _new_header(raw: bytes, tensors: tuple[StoredTensor, ...], forms: Mapping[str, Form]) -> bytes:
    """The header with its length: same names in the same order, then the scales; same metadata."""
    entries, position = json.loads(raw[LENGTH_BYTES:]), 0
    scales: list[tuple[str, int]] = []
    for tensor in tensors:
        entry, size, form = entries[tensor.name], tensor.end - tensor.begin, forms.get(tensor.name, Form.AS_IS)
        if form is Form.BFLOAT16:
            entry["dtype"], size = "BF16", size // 2
        elif form is Form.FLOAT8:
            entry["dtype"], size = "F8_E4M3", math.prod(tensor.shape)
            scales.append((tensor.name + SCALE_SUFFIX, tensor.shape[0]))
        entry["data_offsets"] = [position, position + size]
        position += size
    for name, count in scales:
        entries[name] = {"dtype": "F32", "shape": [count], "data_offsets": [position, position + 4 * count]}
        position += 4 * count
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # data starts at a multiple of 8, as the reference writer has it
    return len(text).to_bytes(LENGTH_BYTES, "little") + text
