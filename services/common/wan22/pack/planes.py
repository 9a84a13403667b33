"""The codec `planes+zstd`: weights' exponents take few values and compress well, their mantissas do not.

Each little-endian word of w bytes is rotated left by one bit, which puts the exponent of bfloat16 and float32 into the
top byte (words of one byte stay as they are). Stored are the lower bytes of all words, plane by plane from the lowest;
then a 4-byte length of each frame; then the top bytes, 131,072 a frame, each frame a standard one of zstd (RFC 8878)
with its content size. Frames decode on their own, on a CPU or many at once on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from wan22.pack.malformed import MalformedFile

FRAME_BYTES = 128 << 10
"""One block of zstd, with a Huffman table of its own."""
PARAMETERS = zstandard.ZstdCompressionParameters.from_level(
    1, strategy=zstandard.STRATEGY_FAST, min_match=7, hash_log=6, window_log=17
)
"""Looks for almost no repeats: what it finds among exponents is chance, and costs more than Huffman coding them."""
_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4")}


def encode(data: bytes, word: int) -> list[bytes | memoryview]:
    """The stored form of whole words, in pieces to be written one after the other."""
    compressor = zstandard.ZstdCompressor(compression_params=PARAMETERS)
    if word == 1:
        view = memoryview(data)
        frames = [compressor.compress(view[start : start + FRAME_BYTES]) for start in range(0, len(data), FRAME_BYTES)]
        return [_lengths(frames), *frames]
    words = np.frombuffer(data, dtype=_TYPES[word])
    lower, frames = np.empty((word - 1, len(words)), np.uint8), []
    room, rest = np.empty(FRAME_BYTES, _TYPES[word]), np.empty(FRAME_BYTES, np.uint8)
    for start in range(0, len(words), FRAME_BYTES):  # a frame's words stay in the processor's cache
        part = words[start : start + FRAME_BYTES]
        shifted, byte = room[: len(part)], rest[: len(part)]
        for plane in range(1, word - 1):
            np.right_shift(part, 8 * plane - 1, out=shifted)
            _take_lowest(lower[plane, start : start + len(part)], shifted)
        lowest = lower[0, start : start + len(part)]
        _take_lowest(lowest, part)
        lowest <<= 1
        np.less(part.view(part.dtype.str.replace("u", "i")), 0, out=byte.view(bool))  # the sign, in one pass
        lowest |= byte
        np.right_shift(part, 8 * word - 9, out=shifted)
        _take_lowest(byte, shifted)
        frames.append(compressor.compress(byte.data))
    return [lower.reshape(-1).data, _lengths(frames), *frames]


def _take_lowest(target: NDArray[np.uint8], words: NDArray[Any]) -> None:
    """The lowest byte of each word: casting is faster than a copy with strides."""
    np.copyto(target, words, casting="unsafe")


def frame_lengths(stored: bytes | memoryview, length: int, word: int) -> tuple[int, NDArray[np.int64]]:
    """Where the first frame of an encoded form begins, and the bytes of each. Raises MalformedFile if they do not fit.

    What they decode to is given by `length`: FRAME_BYTES each, and the rest of the words' top bytes in the last.
    """
    count = length // word
    frames = -(-count // FRAME_BYTES)
    lower_end, lengths_end = count * (word - 1), count * (word - 1) + 4 * frames
    if len(stored) < lengths_end:
        raise MalformedFile(f"it has {len(stored)} bytes, its planes and frame lengths need {lengths_end}")
    lengths = np.frombuffer(stored, "<u4", frames, lower_end).astype(np.int64)
    end = lengths_end + int(lengths.sum())
    if end != len(stored):
        raise MalformedFile(f"its frames are said to end at {end} of {len(stored)} bytes")
    return lengths_end, lengths


def decode(stored: bytes | memoryview, length: int, word: int) -> memoryview:
    """The `length` bytes that were encoded, whatever `stored` claims. Raises MalformedFile."""
    count = length // word
    begin, lengths = frame_lengths(stored, length, word)
    lower = np.frombuffer(stored, np.uint8, count * (word - 1)).reshape(word - 1, count)
    words, room = np.empty(count, _TYPES[word]), np.empty(FRAME_BYTES, _TYPES[word])
    decompressor, view = zstandard.ZstdDecompressor(), memoryview(stored)
    for number, size in enumerate(lengths.tolist()):
        start = number * FRAME_BYTES
        part = words[start : start + FRAME_BYTES]
        top = np.frombuffer(_decode_frame(decompressor, view[begin : begin + size], len(part), number), np.uint8)
        begin += size
        if word == 1:
            part[:] = top
            continue
        rotated = room[: len(part)]
        planes = rotated.view(np.uint8)
        for plane in range(word - 1):
            planes[plane::word] = lower[plane, start : start + len(part)]
        planes[word - 1 :: word] = top
        np.right_shift(rotated, 1, out=part)
        rotated <<= 8 * word - 1
        part |= rotated
    return words.view(np.uint8).data


def _decode_frame(decompressor: zstandard.ZstdDecompressor, frame: memoryview, wanted: int, number: int) -> bytes:
    try:
        # asked first: the library would make room for whatever a frame claims
        claimed = zstandard.get_frame_parameters(frame).content_size
        if claimed != wanted:
            raise MalformedFile(f"frame {number} claims {claimed} bytes, not {wanted}")
        content = decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise MalformedFile(f"frame {number} does not decode: {error}") from None
    if len(content) != wanted:
        raise MalformedFile(f"frame {number} has {len(content)} bytes, not {wanted}")
    return content


def _lengths(frames: Sequence[bytes]) -> bytes:
    return np.array([len(frame) for frame in frames], dtype="<u4").tobytes()
