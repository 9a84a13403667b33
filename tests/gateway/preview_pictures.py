"""Previews as workers make them."""

from __future__ import annotations

import io

from PIL import Image

from wan22.v1.generation_pb2 import Preview


def webp(width: int = 8, height: int = 6, level: int = 0) -> bytes:
    """Two pictures that follow each other."""
    file = io.BytesIO()
    images = [Image.new("RGB", (width, height), (level, number * 200, 0)) for number in range(2)]
    images[0].save(file, "WEBP", save_all=True, append_images=images[1:], duration=100)
    return file.getvalue()


def preview(step: int = 1, num_steps: int = 4, width: int = 8, height: int = 6) -> Preview:
    image = webp(width, height, step)
    return Preview(step=step, num_steps=num_steps, image=image, width=width, height=height)
