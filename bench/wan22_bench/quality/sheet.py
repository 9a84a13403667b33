"""A contact sheet: of each video a row of frames, beside them what was asked for and what was read."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from wan22_bench.quality.answers import Shown
from wan22_bench.quality.pictures import as_levels
from wan22_inference.engine.frame import Frame

VIDEOS = 16
FRAMES = 5
_SIDE, _GAP, _TEXT = 128, 8, 400
"""Pixels of a frame, between frames, and of the texts' column."""
_LETTERS, _LINE = 46, 19
"""Of a line of text, and its height in pixels."""


@dataclass(frozen=True)
class Shot:
    """A generated video, and what is said of it."""

    prompt: str
    frames: Sequence[Frame]
    """FRAMES of them, from the first to the last."""
    wanted: Shown
    read: Shown

    @classmethod
    def of(cls, prompt: str, video: Tensor, wanted: Shown, read: Shown) -> Self:
        """Of a video (3, frames, height, width) in [-1, 1]."""
        last = video.shape[1] - 1
        frames = [as_levels(video[:, round(index * last / (FRAMES - 1))]) for index in range(FRAMES)]
        return cls(prompt, frames, wanted, read)

    @property
    def verdict(self) -> str:
        """What the judge has read."""
        if self.wanted == self.read:
            return "read right"
        groups = [f"{one.number} {one.colour} {one.shape} {one.motion}" for one in sorted(self.read, key=str)]
        return f"read: {', '.join(groups) or 'nothing'}"


def chosen(shots: Mapping[str, Sequence[Shot]], count: int = VIDEOS) -> list[tuple[str, Shot]]:
    """The first shots of each row, as many of one as of another as far as they go, by the rows' order."""
    taken = dict.fromkeys(shots, 0)
    while sum(taken.values()) < count:
        more = [name for name, have in taken.items() if have < len(shots[name])]
        if not more:
            break
        for name in more[: count - sum(taken.values())]:
            taken[name] += 1
    return [(name, shot) for name, have in taken.items() for shot in shots[name][:have]]


def draw(shots: Sequence[tuple[str, Shot]]) -> Image.Image:
    """The sheet, one shot under the other."""
    step = _SIDE + _GAP
    sheet = Image.new("RGB", (_GAP + FRAMES * step + _TEXT, _GAP + len(shots) * step), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for row, (name, shot) in enumerate(shots):
        top = _GAP + row * step
        for column, frame in enumerate(shot.frames):
            picture = Image.fromarray(frame).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
            sheet.paste(picture, (_GAP + column * step, top))
        texts = ((name, "dimgrey"), (shot.prompt, "black"), (shot.verdict, "dimgrey"))
        lines = [(line, colour) for text, colour in texts for line in textwrap.wrap(text, _LETTERS)]
        for number, (line, colour) in enumerate(lines):
            pen.text((2 * _GAP + FRAMES * step, top + number * _LINE), line, fill=colour, font=font)
    return sheet


def write(shots: Mapping[str, Sequence[Shot]], file: Path) -> None:
    """Draws the first sixteen as PNG."""
    draw(chosen(shots)).save(file, "PNG", optimize=True)
