from __future__ import annotations

import math
import random
from collections import Counter

import pytest
import zstandard

from wan22.pack.frame_compressor import FrameCompressor

FRAME = 128 << 10
EXPONENTS = bytes(random.Random(1).choices(range(112, 122), [1, 2, 4, 8, 16, 32, 64, 90, 60, 20], k=FRAME))


def compress(content: bytes, room: int = 2 * FRAME) -> bytes | None:
    target = bytearray(room)
    size = FrameCompressor().compress(memoryview(content), memoryview(target))
    return None if size is None else bytes(target[:size])


CONTENTS = {"nothing": b"", "a byte": b"a", "zeros": bytes(FRAME), "all": bytes(range(256)) * 512, "weights": EXPONENTS}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_frame_is_a_standard_one_and_says_its_size(content: bytes) -> None:
    frame = compress(content)
    assert frame is not None
    assert zstandard.get_frame_parameters(frame).content_size == len(content)
    assert zstandard.ZstdDecompressor().decompress(frame) == content


def test_it_is_as_small_as_huffmans_code_and_smaller_than_with_a_search() -> None:
    frame = compress(EXPONENTS)
    assert frame is not None
    entropy = sum(-count * math.log2(count / FRAME) / 8 for count in Counter(EXPONENTS).values())
    assert entropy < len(frame) < 1.03 * entropy
    assert len(frame) < len(zstandard.ZstdCompressor(level=1).compress(EXPONENTS))


def test_one_compressor_makes_equal_frames_of_equal_bytes() -> None:
    compressor, target = FrameCompressor(), bytearray(2 * FRAME)
    frames = []
    for content in (EXPONENTS, b"other", EXPONENTS):
        size = compressor.compress(memoryview(content), memoryview(target))
        assert size is not None
        frames.append(bytes(target[:size]))
    assert frames[0] == frames[2] == compress(EXPONENTS)


@pytest.mark.parametrize("content", [EXPONENTS, EXPONENTS[:5_000], bytes(FRAME)], ids=["a frame", "less", "zeros"])
def test_where_there_is_no_room_there_is_no_frame(content: bytes) -> None:
    frame = compress(content)
    assert frame is not None
    assert compress(content, len(frame) + 8) == frame
    for room in (0, 1, len(frame) // 2, len(frame) - 1):
        assert compress(content, room) is None
