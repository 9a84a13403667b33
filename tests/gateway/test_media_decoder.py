"""The decoder of images under attack: what each limit is for, by files that break it."""

from __future__ import annotations

import asyncio
import io
import re
import struct
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import uvloop
from PIL import Image

from wan22.errors import InvalidRequest, Reason
from wan22_gateway.media_decoder import DecoderLimits, decode, decoder

LIMITS = DecoderLimits(seconds=120.0)
"""Of a machine that has other work."""
BROKEN = "broke the decoder or its limits"


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, file_format, **options)
    return data.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, rows: bytes) -> bytes:
    """Of 8 bits, grey."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def zeros(size: int) -> bytes:
    """So many, compressed a thousand times."""
    packer = zlib.compressobj(9)
    return b"".join([packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]) + packer.flush()


def scans(times: int) -> bytes:
    """A small file that takes long: a JPEG of 36 million pixels in very many scans, each of which adds nothing."""
    data = encoded(Image.new("L", (6000, 6000), 128), "JPEG", progressive=True)
    begins = [found.start() for found in re.finditer(b"\xff\xc4", data)]  # a table before each scan
    scan = min((data[begin:end] for begin, end in pairwise(begins)), key=len)
    return data[:-2] + scan * times + data[-2:]


async def refusal(data: bytes, limits: DecoderLimits, command: Sequence[str] | None = None) -> str:
    with pytest.raises(InvalidRequest) as caught:
        await decode(data, limits, command or decoder(limits))
    assert caught.value.reason is Reason.MEDIA_UNREADABLE
    assert caught.value.message.startswith("The image was refused: ")
    return caught.value.message


async def test_an_image_is_decoded_and_its_size_told() -> None:
    content, width, height = await decode(encoded(Image.new("RGB", (6, 4)), "WEBP"), LIMITS, decoder(LIMITS))
    assert (width, height) == (6, 4)
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        assert (image.size, image.mode) == ((6, 4), "RGB")


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
async def test_a_bomb_of_pixels_is_refused_unread(file_format: str) -> None:
    side = 7_000
    bombs = {
        "PNG": lambda: png(side, side, rows=zeros(side * (side + 1))),
        "JPEG": lambda: encoded(Image.new("L", (side, side)), "JPEG"),
        "WEBP": lambda: encoded(Image.new("L", (side, side)), "WEBP", lossless=True, quality=0, method=0),
    }
    data = bombs[file_format]()
    assert len(data) < 5 << 20
    assert "pixels" in await refusal(data, LIMITS)


@pytest.mark.parametrize("kind", ["rows beyond the image", "a compressed text", "a compressed profile"])
async def test_what_unpacks_to_much_beside_a_small_image_takes_no_memory(kind: str) -> None:
    limits = replace(LIMITS, memory_bytes=128 << 20)
    rows, bomb = zlib.compress((b"\0" + b"\x80" * 8) * 8), zeros(1 << 28)
    if kind == "rows beyond the image":
        _, width, height = await decode(png(8, 8, rows=bomb), limits, decoder(limits))
        assert (width, height) == (8, 8)
    else:
        extra = {"a compressed text": (b"zTXt", b"t\0\0"), "a compressed profile": (b"iCCP", b"p\0\0")}[kind]
        data = png(8, 8, chunk(extra[0], extra[1] + bomb), rows=rows)
        try:
            await decode(data, limits, decoder(limits))
        except InvalidRequest as error:
            assert "too large" in error.message  # noqa: PT017  # leaving it out is right too


async def test_more_memory_than_an_image_may_take_is_refused() -> None:
    limits = replace(LIMITS, memory_bytes=128 << 20)
    data = encoded(Image.new("RGB", (6000, 6000)), "PNG")
    assert "memory" in await refusal(data, limits)


async def test_a_file_that_keeps_the_decoder_busy_is_given_up_after_its_processor_time() -> None:
    limits = replace(LIMITS, processor_seconds=1)
    data = scans(1_500)
    assert len(data) < 300_000
    assert BROKEN in await refusal(data, limits)


async def test_a_decoder_that_does_not_end_is_ended_by_the_clock(tmp_path: Path) -> None:
    program = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"
    told = tmp_path / "pid"
    before = time.monotonic()
    text = await refusal(b"", replace(LIMITS, seconds=5.0), [sys.executable, "-c", program, str(told)])
    assert "it takes too long to decode" in text
    assert time.monotonic() - before < 60
    assert not Path("/proc", told.read_text()).exists()


async def test_a_decoder_that_writes_without_end_is_ended_and_not_kept() -> None:
    limits = replace(LIMITS, pixels=1_000)
    program = "import sys\nwhile True: sys.stdout.buffer.write(bytes(1 << 20))"
    assert BROKEN in await refusal(b"", limits, [sys.executable, "-c", program])
    assert BROKEN in await refusal(b"", limits, [sys.executable, "-c", program.replace("stdout", "stderr")])


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("raise IndexError('/srv/secret')", BROKEN),
        ("import os; os.abort()", BROKEN),
        ("pass", "broke the decoder"),
        ("import sys; sys.stdout.write('P' * 100)", "broke the decoder"),
        (r"import sys; sys.stdout.buffer.write(b'\x89PNG\r\n\x1a\n' + bytes([255]) * 100)", "broke the decoder"),
    ],
    ids=["a fault of its own", "an abort", "nothing", "no PNG", "a PNG of absurd size"],
)
async def test_a_broken_decoder_is_told_from_a_bad_file_and_tells_nothing(program: str, why: str) -> None:
    text = await refusal(b"x" * (4 << 20), LIMITS, [sys.executable, "-c", program])
    assert why in text
    assert "secret" not in text


def test_a_decoder_that_ends_at_once_is_a_broken_one_whatever_the_loop() -> None:
    async def run() -> list[str]:
        return [await refusal(bytes(size << 17), LIMITS, ["/bin/false"]) for size in range(40)]

    for make_loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=make_loop) as runner:
            assert all(BROKEN in text for text in runner.run(run()))


async def test_the_decoder_is_told_no_secret_of_the_gateways_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    program = "import os, sys; sys.stderr.write(','.join(os.environ)); sys.exit(3)"
    assert "AWS" not in await refusal(b"", LIMITS, [sys.executable, "-c", program])


def test_no_png_is_larger_than_is_taken() -> None:
    limits = DecoderLimits(pixels=4_000)
    for size in ((4_000, 1), (1, 4_000)):
        noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
        assert 3 * 4_000 < len(encoded(Image.fromarray(noise), "PNG", compress_level=0)) < limits.png_bytes - (1 << 19)
