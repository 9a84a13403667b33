"""A contact sheet: of each video a row of frames, beside them what was asked for and what was read."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from wan22_bench.quality.answers import Shown
from wan22_bench.quality.pictures import as_levels

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
    video: Tensor
    """(3, frames, height, width) in [-1, 1]."""
    wanted: Shown
    read: Shown

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
        last = shot.video.shape[1] - 1
        for column in range(FRAMES):
            frame = as_levels(shot.video[:, round(column * last / (FRAMES - 1))])
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
