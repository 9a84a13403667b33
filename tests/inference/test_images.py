from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from wan22.errors import InvalidRequest, Reason
from wan22_inference.engine.images import cover, read_image


def stripes(width: int, height: int) -> Image.Image:
    """Left third red, middle green, right blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for channel in range(3):
        pixels[:, width * channel // 3 : width * (channel + 1) // 3, channel] = 255
    return Image.fromarray(pixels)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_an_image_of_the_right_size_is_taken_pixel_for_pixel() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    tensor = read_image(png(Image.fromarray(noise)), "image", 48, 32)
    assert tensor.shape == (1, 3, 32, 48)
    levels = ((tensor[0].permute(1, 2, 0) + 1.0) * 127.5).round().numpy().astype(np.uint8)
    np.testing.assert_array_equal(levels, noise)


def test_a_wider_image_loses_its_sides_and_keeps_its_centre() -> None:
    fitted = np.asarray(cover(stripes(300, 100), 100, 100))
    assert fitted.shape == (100, 100, 3)
    np.testing.assert_array_equal(fitted[50, [5, 50, 94]], [[0, 255, 0]] * 3)  # only the middle third is left


def test_a_taller_image_keeps_its_whole_width() -> None:
    fitted = np.asarray(cover(stripes(96, 960), 96, 32))
    assert fitted.shape == (32, 96, 3)
    np.testing.assert_array_equal(fitted[16, [10, 48, 86]], [[255, 0, 0], [0, 255, 0], [0, 0, 255]])


def test_the_aspect_is_kept_where_the_official_code_stretches() -> None:
    circle = np.zeros((1080, 1920, 3), np.uint8)
    rows, columns = np.ogrid[:1080, :1920]
    circle[(rows - 540) ** 2 + (columns - 960) ** 2 < 400**2] = 255
    inside = np.asarray(cover(Image.fromarray(circle), 832, 464))[..., 0] > 127
    height, width = inside.any(axis=1).sum(), inside.any(axis=0).sum()
    assert abs(int(height) - int(width)) <= 1  # stretched, it would be 3 pixels wider than tall


def test_scaling_down_averages_instead_of_skipping() -> None:
    checkers = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)
    fitted = np.asarray(cover(Image.fromarray(np.stack([checkers] * 3, axis=2)), 64, 64))
    assert np.abs(fitted.astype(int) - 128).max() <= 8


def test_bytes_that_are_no_image_are_refused_by_field() -> None:
    with pytest.raises(InvalidRequest, match="last_image cannot be read as a PNG") as caught:
        read_image(b"\x89PNG nothing", "last_image", 64, 64)
    assert caught.value.reason is Reason.MEDIA_UNREADABLE
    assert caught.value.violations[0].field == "parameters.last_image"


def test_a_truncated_image_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="image cannot be read as a PNG"):
        read_image(png(stripes(64, 64))[:-40], "image", 64, 64)
