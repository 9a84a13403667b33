"""The small video of a simulated rendering."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wan22.recipe import Recipe
from wan22_inference.engine.frame import Frame
from wan22_inference.engine.mp4 import Mp4Writer

SIDE = 64
"""Pixels: a real MP4 that takes milliseconds to make."""
MAX_FRAMES = 8
BLOCKS = 4
"""Coloured squares a side."""


def write_video(path: Path, state: bytes, recipe: Recipe) -> None:
    """Writes an MP4 of coloured squares that move: the 32 bytes of state choose the colours.

    Equal states and recipes give equal bytes. It has at most 8 frames of 64 x 64, whatever the recipe says.
    """
    fps, num_frames = recipe.parameters["fps"], recipe.parameters["num_frames"]
    with Mp4Writer(path, width=SIDE, height=SIDE, fps=fps, recipe=recipe) as video:
        for frame in _frames(state, min(num_frames, MAX_FRAMES)):
            video.write(frame)


def pictures(state: bytes) -> npt.NDArray[np.uint8]:
    """The same squares, for a preview: (F, h, w, 3), a few pixels each."""
    return np.stack(list(_frames(state, MAX_FRAMES)))[:, :: SIDE // 16, :: SIDE // 16]


def _frames(state: bytes, count: int) -> Iterator[Frame]:
    colours = np.frombuffer((state * 2)[: BLOCKS * BLOCKS * 3], np.uint8).reshape(BLOCKS, BLOCKS, 3)
    picture = colours.repeat(SIDE // BLOCKS, 0).repeat(SIDE // BLOCKS, 1)
    for number in range(count):
        yield np.ascontiguousarray(np.roll(picture, number, axis=1))
