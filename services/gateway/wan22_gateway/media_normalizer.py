"""Reads an image from standard input and writes it as an RGB PNG to standard output; run in a process with limits.

A file that the decoder cannot bear ends this process and nothing else. The text for the caller goes to standard error.
"""

from __future__ import annotations

import io
import resource
import sys
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 40_000_000
MEMORY_BYTES = 2 << 30
CPU_SECONDS = 20
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")


def normalize(data: bytes) -> bytes:
    """Applies the EXIF orientation, puts transparency on white, and drops everything but the pixels.

    Raises ValueError in words for the caller.
    """
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            warnings.simplefilter("ignore")  # Pillow's warnings on odd metadata; the limits are checked here
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"it has {image.width} x {image.height} pixels: use at most {MAX_PIXELS} in all")
            upright = ImageOps.exif_transpose(image)
            rgba = _in_8_bits(upright).convert("RGBA")
    except UnidentifiedImageError:
        raise ValueError(f"it is none of {', '.join(FORMATS)}") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"it cannot be decoded: {error}") from None
    canvas = Image.new("RGBA", rgba.size, "white")
    flat = Image.alpha_composite(canvas, rgba).convert("RGB")
    png = io.BytesIO()
    flat.save(png, "PNG", compress_level=1)
    return png.getvalue()


def _in_8_bits(image: Image.Image) -> Image.Image:
    """The image with 8 bits a channel. Pillow has only grey ones in 16, and would cut them off at 255."""
    if not image.mode.startswith("I"):
        return image
    return image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")


def main() -> int:
    """Limits the process, then works. Returns the exit code."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    try:
        png = normalize(sys.stdin.buffer.read())
    except (ValueError, MemoryError) as error:
        sys.stderr.write(str(error) or "it needs more memory than an image may")
        return 1
    sys.stdout.buffer.write(png)
    return 0


if __name__ == "__main__":
    sys.exit(main())
