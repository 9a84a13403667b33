"""Reads a safetensors file as if some of its tensors were of fewer bits, without making such a file."""

from __future__ import annotations

import bisect
import itertools
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from wan22.pack.malformed import MalformedFile
from wan22.pack.quantise import READABLE, as_float32, quantise_rows
from wan22.pack.safetensors_header import LENGTH_BYTES, SafetensorsHeader, StoredTensor, header_end, parse_header

STEP_BYTES = 256 << 10
"""Read and converted at a time, so that it stays in the processor's cache; a row that is quantised may have more."""
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


@dataclass(frozen=True)
class _Span:
    """A part of the converted file that comes from one part of the source."""

    begin: int
    """First byte in the converted file."""
    end: int
    source: int
    """First byte in the source."""
    form: Form
    tensor: StoredTensor | None = None
    """Of the source; None of what is kept."""
    scales: int = 0
    """Which of all scales is its first row's."""


class Converted:
    """The converted file, to be read in any order, by several threads; the source itself where nothing is converted.

    Its tensors are in the source's order. The scales of quantised ones come after all others.
    """

    def __init__(self, source: BinaryIO, source_size: int, choose: Choice) -> None:
        """Raises MalformedFile for a source that is no safetensors file."""
        prefix = source.read(LENGTH_BYTES)
        raw = prefix + source.read(header_end(prefix, source_size) - len(prefix))
        self._descriptor = source.fileno()
        self.header: SafetensorsHeader = parse_header(raw, source_size)
        self.size = source_size
        self._begin = b""
        self._scales = np.empty(0, "<f4")
        self._spans = [_Span(0, source_size, 0, Form.AS_IS)]
        forms = {tensor.name: form for tensor in self.header.tensors if (form := choose(tensor)) is not Form.AS_IS}
        if forms:
            _check(self.header, forms)
            tensors = self.header.tensors
            rows = sum(tensor.shape[0] for tensor in tensors if forms.get(tensor.name) is Form.FLOAT8)
            self._scales = np.empty(rows, "<f4")
            self._begin = _new_header(raw, tensors, forms)
            self._spans = _spans(len(self._begin), tensors, forms)
            self.size = self._spans[-1].end + self._scales.nbytes
            self.header = parse_header(self._begin, self.size)
        self.scales_begin = self.size - self._scales.nbytes
        """What lies from here on can be read when all before has been: scales are known then."""

    def read(self, begin: int, target: memoryview) -> None:
        """Fills the target from this byte of the converted file on; words that are converted are not cut.

        Raises MalformedFile for a source that has become shorter, or has what cannot be converted.
        """
        end = begin + len(target)
        if begin < len(self._begin):
            part = self._begin[begin:end]
            target[: len(part)] = part
        if end > self.scales_begin:
            first = max(begin, self.scales_begin)
            scales = self._scales.data.cast("B")
            target[first - begin :] = scales[first - self.scales_begin : end - self.scales_begin]
        first_span = bisect.bisect_right(self._spans, begin, key=lambda span: span.end)
        for span in itertools.takewhile(lambda span: span.begin < end, self._spans[first_span:]):
            low, high = max(begin, span.begin), min(end, span.end)
            part_of_target = target[low - begin : high - begin]
            if span.tensor is None:
                self._read(span.source + low - span.begin, part_of_target)
            elif span.form is Form.BFLOAT16:
                self._read_bfloat16(span, low - span.begin, part_of_target)
            else:
                self._read_float8(span, span.tensor, low - span.begin, part_of_target)

    def _read(self, offset: int, target: memoryview) -> None:
        done = 0
        while done < len(target):
            count = os.preadv(self._descriptor, [target[done:]], offset + done)
            if count == 0:
                raise MalformedFile(f"it ended at {offset + done} while it was packed")
            done += count

    def _read_bfloat16(self, span: _Span, begin: int, target: memoryview) -> None:
        room = memoryview(bytearray(STEP_BYTES))
        for start in range(0, len(target), STEP_BYTES // 2):
            part = target[start : start + STEP_BYTES // 2]
            source = room[: 2 * len(part)]
            self._read(span.source + 2 * (begin + start), source)
            to_bfloat16(source, np.frombuffer(part, "<u2"))

    def _read_float8(self, span: _Span, tensor: StoredTensor, begin: int, target: memoryview) -> None:
        """Reads whole rows, also those that the target has only a part of."""
        row, width = _row_bytes(tensor), tensor.shape[1]
        step = max(1, STEP_BYTES // row)
        end = begin + len(target)
        room = memoryview(bytearray(step * row))
        for first in range(begin // width, -(-end // width), step):
            last = min(first + step, -(-end // width))
            source = room[: (last - first) * row]
            self._read(span.source + first * row, source)
            try:
                eights, scales = quantise_rows(as_float32(source, tensor.dtype).reshape(-1, width))
            except MalformedFile as error:
                raise MalformedFile(f"tensor {tensor.name!r} cannot be quantised: {error}") from None
            self._scales[span.scales + first : span.scales + last] = scales
            low, high = max(begin, first * width), min(end, last * width)
            found = eights.reshape(-1).data
            target[low - begin : high - begin] = found[low - first * width : high - first * width]


def _spans(begin: int, tensors: tuple[StoredTensor, ...], forms: Mapping[str, Form]) -> list[_Span]:
    """Where each tensor of the source lies in the converted file; neighbours that are kept are one span."""
    spans, scales = [], 0
    for form, run in itertools.groupby(tensors, key=lambda tensor: forms.get(tensor.name, Form.AS_IS)):
        members = list(run)
        if form is Form.AS_IS:
            end = begin + members[-1].end - members[0].begin
            spans.append(_Span(begin, end, members[0].begin, form))
            begin = end
            continue
        for tensor in members:
            end = begin + _new_bytes(tensor, form)
            spans.append(_Span(begin, end, tensor.begin, form, tensor, scales))
            scales += tensor.shape[0] if form is Form.FLOAT8 else 0
            begin = end
    return spans


def to_bfloat16(data: memoryview, target: NDArray[np.uint16]) -> None:
    """Little-endian float32 values as bfloat16, rounded to nearest, ties to even, as torch does it."""
    words = np.frombuffer(data, "<u4")
    rounded = words >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += words  # a sum that wraps is a NaN's, which is set below
    rounded += np.uint32(0x7FFF)
    np.right_shift(rounded, 16, out=target, casting="unsafe")
    target[(words & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)] = 0x7FC0


def _row_bytes(tensor: StoredTensor) -> int:
    return (tensor.end - tensor.begin) // max(1, tensor.shape[0])


def _new_bytes(tensor: StoredTensor, form: Form) -> int:
    """Of a tensor once it is converted, without its scales."""
    if form is Form.FLOAT8:
        return math.prod(tensor.shape)
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
        entry, form = entries[tensor.name], forms.get(tensor.name, Form.AS_IS)
        size = _new_bytes(tensor, form)
        if form is not Form.AS_IS:
            entry["dtype"] = "BF16" if form is Form.BFLOAT16 else "F8_E4M3"
        if form is Form.FLOAT8:
            scales.append((tensor.name + SCALE_SUFFIX, tensor.shape[0]))
        entry["data_offsets"] = [position, position + size]
        position += size
    for name, count in scales:
        entries[name] = {"dtype": "F32", "shape": [count], "data_offsets": [position, position + 4 * count]}
        position += 4 * count
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # data starts at a multiple of 8, as the reference writer has it
    return len(text).to_bytes(LENGTH_BYTES, "little") + text
