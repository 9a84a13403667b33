"""Reads an image from standard input and writes it as an RGB PNG to standard output; run in a process with limits.

`python -m wan22_gateway.media_normalizer MEMORY_BYTES PROCESSOR_SECONDS PIXELS`. A file that the decoder cannot bear
ends this process and nothing else. The text for the caller goes to standard error, with exit code REFUSED.
"""

from __future__ import annotations

import io
import sys
import warnings
from typing import BinaryIO

from PIL import AvifImagePlugin, Image, ImageOps, UnidentifiedImageError

from wan22.confinement import REFUSED, confine

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each thread takes address space of its own


def normalize(data: bytes, max_pixels: int, png: BinaryIO) -> None:
    """Writes the upright image, with what is transparent on white and nothing but its pixels.

    Raises ValueError in words for the caller.
    """
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            warnings.simplefilter("ignore")  # Pillow's warnings on odd metadata; the limits are checked here
            if image.width * image.height > max_pixels:
                raise ValueError(f"it has {image.width} x {image.height} pixels: use at most {max_pixels} in all")
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            flat = _on_white(_in_8_bits(image))
    except UnidentifiedImageError:
        raise ValueError(f"it is none of {', '.join(FORMATS)}") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"it cannot be decoded: {error}") from None
    flat.info.clear()
    flat.save(png, "PNG", compress_level=1)


def _in_8_bits(image: Image.Image) -> Image.Image:
    """The image with 8 bits a channel. Pillow has only grey ones in 16, and would cut them off at 255."""
    if not image.mode.startswith("I"):
        return image
    return image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")


def _on_white(image: Image.Image) -> Image.Image:
    """In RGB."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image.convert("RGBA")
    flat = Image.new("RGB", rgba.size, "white")
    flat.paste(rgba, mask=rgba)
    return flat


def main() -> int:
    """Limits the process, then works. Returns the exit code."""
    memory_bytes, processor_seconds, max_pixels = map(int, sys.argv[1:])
    confine(memory_bytes, processor_seconds)
    try:
        normalize(sys.stdin.buffer.read(), max_pixels, sys.stdout.buffer)
    except (ValueError, MemoryError) as error:
        sys.stderr.write(str(error) or "it needs more memory than an image may")
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
