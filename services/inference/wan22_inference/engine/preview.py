"""A small picture of what a video is becoming."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from wan22.previews import MAX_BYTES

MAX_PICTURES = 8
_QUALITIES = (75, 40, 10)
"""WebP's, tried in this order until the file is small enough: early steps are noisy, and noise does not compress."""


@dataclass(frozen=True)
class Preview:
    """What is shown of one step."""

    step: int
    """Steps done."""
    num_steps: int
    image: bytes
    """WebP, animated where there are several pictures that differ."""
    width: int
    height: int


ShowPreview = Callable[[Preview], None]


def make_preview(step: int, num_steps: int, pictures: npt.NDArray[np.uint8], seconds: float) -> Preview:
    """The preview of pictures (F, h, w, 3) that follow each other in a video of so many seconds.

    Where they would take more than MAX_BYTES they are compressed further, and then every second one is left out.
    """
    _, height, width, _ = pictures.shape
    images = [Image.fromarray(picture) for picture in pictures]
    while True:
        for quality in _QUALITIES:
            image = _webp(images, quality, seconds)
            if len(image) <= MAX_BYTES:
                return Preview(step, num_steps, image, width, height)
        if len(images) == 1:
            raise ValueError(f"a picture of {width} x {height} takes {len(image)} bytes")
        images = images[::2]


def _webp(images: Sequence[Image.Image], quality: int, seconds: float) -> bytes:
    file = io.BytesIO()
    milliseconds = max(1, round(1000 * seconds / len(images)))
    images[0].save(
        file,
        "WEBP",
        save_all=True,
        append_images=images[1:],
        duration=milliseconds,
        loop=0,
        quality=quality,
        method=2,
    )
    return file.getvalue()
