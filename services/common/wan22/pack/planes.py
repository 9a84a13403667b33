"""The codec `planes+zstd`: weights' exponents take few values and compress well, their mantissas do not.

Each little-endian word of w bytes is rotated left by one bit, which puts the exponent of bfloat16 and float32 into the
top byte (words of one byte stay as they are). Stored are the lower bytes of all words, plane by plane from the lowest;
then a 4-byte length of each frame; then the top bytes, 131,072 a frame, each frame a standard one of zstd (RFC 8878)
with its content size. Frames decode on their own, on a CPU or many at once on a GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from wan22.pack.frame_compressor import FrameCompressor
from wan22.pack.malformed import MalformedFile

FRAME_BYTES = 128 << 10
"""One block of zstd, with a Huffman table of its own."""
AT_ONCE = 8
"""Frames whose words are taken apart at once: they stay in the processor's cache, and take an eighth of the calls."""
_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4")}
_SIGNED: dict[int, np.dtype[Any]] = {2: np.dtype("<i2"), 4: np.dtype("<i4")}


def encode(data: memoryview, word: int, target: memoryview) -> int | None:
    """Writes the stored form of whole words, and returns its bytes; None where the target has no room for it.

    What is in the target after it may be anything.
    """
    compressor = FrameCompressor()
    words = np.frombuffer(data, _TYPES[word])
    frames = -(-len(words) // FRAME_BYTES)
    lower_end = len(words) * (word - 1)
    end = lower_end + 4 * frames
    if end > len(target):
        return None
    lower = np.frombuffer(target, np.uint8, lower_end).reshape(word - 1, len(words))
    lengths = np.frombuffer(target, np.uint8, 4 * frames, lower_end).view("<u4")
    room = np.empty(min(len(words), AT_ONCE * FRAME_BYTES), np.uint8)
    for first in range(0, frames, AT_ONCE):
        place = slice(first * FRAME_BYTES, (first + AT_ONCE) * FRAME_BYTES)
        top = part = words[place]
        if word > 1:
            top = room[: len(part)]
            _take_apart(part, lower[:, place], top)
        for number in range(-(-len(part) // FRAME_BYTES)):
            frame = top[number * FRAME_BYTES : (number + 1) * FRAME_BYTES]
            size = compressor.compress(frame.data, target[end:])
            if size is None:
                return None
            lengths[first + number] = size
            end += size
    return end


def _take_apart(words: NDArray[Any], lower: NDArray[np.uint8], top: NDArray[np.uint8]) -> None:
    """The planes of some words. Each step is one that numpy does at many values at once, and none makes an array."""
    size: int = words.itemsize
    np.less(words.view(_SIGNED[size]), 0, out=top.view(np.bool))  # the sign
    lowest = lower[0]
    np.copyto(lowest, words, casting="unsafe")  # the lowest byte: faster than a copy with strides
    np.add(lowest, lowest, out=lowest)  # one to the left, where a shift of bytes is ten times as slow
    np.bitwise_or(lowest, top, out=lowest)
    for plane in range(1, size - 1):
        np.right_shift(words, 8 * plane - 1, out=lower[plane], casting="unsafe")
    np.right_shift(words, 8 * size - 9, out=top, casting="unsafe")


def count_frames(length: int, word: int) -> int:
    """How many frames an extent of so many bytes has."""
    return -(-(length // word) // FRAME_BYTES)


def frame_lengths(stored: bytes | memoryview, length: int, word: int) -> tuple[int, NDArray[np.int64]]:
    """Where the first frame of an encoded form begins, and the bytes of each. Raises MalformedFile if they do not fit.

    What they decode to is given by `length`: FRAME_BYTES each, and the rest of the words' top bytes in the last.
    """
    count, frames = length // word, count_frames(length, word)
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
