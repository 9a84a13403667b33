"""Image conditions: from PNG bytes to pixels of the output's size."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from wan22.errors import InvalidRequest, Reason


def read_image(png: bytes, field: str, width: int, height: int) -> Tensor:
    """Decodes an image and fits it to the output: (1, 3, height, width) float32 in [-1, 1].

    Raises InvalidRequest (MEDIA_UNREADABLE) naming `field` when the bytes are no image.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as opened:
            image = opened.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidRequest(
            f"{field} cannot be read as a PNG ({error}): upload it again.",
            field=f"parameters.{field}",
            reason=Reason.MEDIA_UNREADABLE,
        ) from error
    pixels = torch.from_numpy(np.array(cover(image, width, height)))
    return (pixels.permute(2, 0, 1).unsqueeze(0).float() / 255.0) * 2.0 - 1.0


def cover(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scales an image to cover the size (Lanczos, antialiased) and cuts off what is left over, centred.

    The official image2video.py stretches to the size instead, by up to a percent. An image that has the size already is
    returned pixel for pixel.
    """
    if image.size == (width, height):
        return image
    return ImageOps.fit(image, (width, height), method=Image.Resampling.LANCZOS, centering=(0.5, 0.5))
