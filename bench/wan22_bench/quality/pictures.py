"""Videos as numbers and as bytes, and how far one is from another."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wan22_inference.engine.frame import Frame

PEAK = 2.0
"""Between the darkest value, -1, and the brightest, 1."""


def as_values(frames: Iterable[Frame]) -> Tensor:
    """Frames as values (3, frames, height, width) in [-1, 1]."""
    levels = torch.from_numpy(np.stack(list(frames)))
    return levels.permute(3, 0, 1, 2).float() / 127.5 - 1


def as_levels(values: Tensor) -> Frame:
    """A picture (3, height, width) in [-1, 1], in 256 levels."""
    levels = ((values.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return levels.permute(1, 2, 0).numpy()


def as_png(frame: Frame) -> bytes:
    """The same, bit for bit."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return file.getvalue()


def square_error(ours: Tensor, theirs: Tensor) -> float:
    """The mean of all values' squared differences."""
    return float((ours - theirs).square().mean())


def psnr(square_errors: Iterable[float]) -> float:
    """Decibels, of the mean of pictures' square errors; infinite where there is none."""
    errors = list(square_errors)
    mean = sum(errors) / len(errors)
    return 10 * math.log10(PEAK**2 / mean) if mean else math.inf
