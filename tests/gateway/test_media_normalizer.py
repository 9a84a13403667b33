from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from wan22_gateway import media_normalizer

ORIENTATION = 0x0112
MAX_PIXELS = 40_000_000


def normalize(data: bytes) -> bytes:
    png = io.BytesIO()
    media_normalizer.normalize(data, MAX_PIXELS, png)
    return png.getvalue()


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, file_format, **options)
    return data.getvalue()


def pixels(png: bytes) -> NDArray[np.uint8]:
    """Of what is an RGB PNG, or else the test fails."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        assert (image.mode, image.info) == ("RGB", {})
        return np.asarray(image)


def raw_png(width: int, height: int, color_type: int, rows: bytes) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize(
    ("file_format", "options", "off_by"),
    [("PNG", {}, 0), ("WEBP", {"lossless": True}, 0), ("JPEG", {"quality": 95}, 2), ("AVIF", {"quality": 95}, 3)],
)
def test_each_format_is_read(file_format: str, options: dict[str, Any], off_by: int) -> None:
    found = pixels(normalize(encoded(Image.new("RGB", (48, 32), (200, 30, 60)), file_format, **options)))
    assert found.shape == (32, 48, 3)
    assert np.abs(found.astype(int) - (200, 30, 60)).max() <= off_by


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_camera_is_applied(orientation: int) -> None:
    image = noise(5, 3)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    plain = np.asarray(image)
    turned = {
        1: plain,
        2: plain[:, ::-1],
        3: plain[::-1, ::-1],
        4: plain[::-1],
        5: plain.transpose(1, 0, 2),
        6: np.rot90(plain, -1),
        7: plain.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(plain),
    }
    found = pixels(normalize(encoded(image, exif=exif)))
    assert np.array_equal(found, turned[orientation])


def palette(colour: Sequence[int]) -> Image.Image:
    image = Image.new("P", (4, 4), 3)
    image.putpalette([0] * 9 + list(colour))
    return image


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (encoded(palette((10, 20, 30))), (10, 20, 30)),
        (encoded(palette((10, 20, 30)), transparency=3), (255, 255, 255)),
        (encoded(Image.new("1", (4, 4), 1)), (255, 255, 255)),
        (encoded(Image.new("L", (4, 4), 77)), (77, 77, 77)),
        (encoded(Image.new("LA", (4, 4), (50, 0))), (255, 255, 255)),
        (encoded(Image.new("RGBA", (4, 4), (0, 100, 200, 128))), (127, 177, 227)),
        (encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), (255, 0, 0)),
        (raw_png(4, 4, 0, (b"\0" + struct.pack(">H", 0x8080) * 4) * 4), (128, 128, 128)),
        (raw_png(4, 4, 2, (b"\0" + struct.pack(">3H", 0x8000, 0x4000, 0xFFFF) * 4) * 4), (128, 64, 255)),
        (raw_png(4, 4, 6, (b"\0" + struct.pack(">4H", 0x8000, 0x4000, 0xFFFF, 0) * 4) * 4), (255, 255, 255)),
    ],
    ids=["palette", "transparent", "bits", "grey", "grey alpha", "alpha", "CMYK", "grey 16", "RGB 16", "RGBA 16"],
)
def test_every_kind_of_pixels_becomes_rgb_on_white(data: bytes, colour: Sequence[int]) -> None:
    found = pixels(normalize(data)).reshape(-1, 3).astype(int)
    assert np.abs(found - colour).max() <= 1


def test_grey_of_16_bits_keeps_its_shades() -> None:
    shades = np.arange(0, 65_536, 257, dtype=np.uint16).reshape(16, 16)
    found = pixels(normalize(encoded(Image.fromarray(shades))))
    assert np.array_equal(found[..., 0], np.arange(256).reshape(16, 16))


def test_nothing_but_pixels_stays() -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    data = encoded(noise(8, 8), "JPEG", exif=exif, comment=b"secret", icc_profile=b"profile" * 20)
    png = normalize(data)
    assert pixels(png).shape == (8, 8, 3)
    assert not any(text in png for text in (b"live", b"secret", b"profile"))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_a_file_that_is_cut_short_is_refused(file_format: str) -> None:
    data = encoded(noise(64, 64), file_format)
    for kept in (len(data) // 2, len(data) - 200):
        with pytest.raises(ValueError, match=r"^it (cannot be decoded|is none of)"):
            normalize(data[:kept])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is none of PNG, JPEG, WEBP, AVIF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it is none of"),
        (encoded(Image.new("P", (4, 4)), "GIF"), "it is none of"),
        (encoded(Image.new("RGB", (4, 4)), "TIFF"), "it is none of"),
        (raw_png(10_000, 4_001, 0, b""), f"it has 10000 x 4001 pixels: use at most {MAX_PIXELS} in all"),
        (raw_png(60_000, 60_000, 0, b""), "it cannot be decoded: Image size"),
    ],
    ids=["nothing", "SVG", "GIF", "TIFF", "large", "bomb"],
)
def test_what_is_no_image_or_too_large_is_refused_in_words(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        normalize(data)
