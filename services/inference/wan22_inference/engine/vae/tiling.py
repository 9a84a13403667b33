"""Runs the levels of a decoder or encoder tile by tile, with the same result as over the whole frame.

A tile goes through all of a video before the next begins, so that only one leaves anything behind at a time. A level
sees `reach` pixels beyond what it makes. A tile's input is wider by that at each level, and what borders on the
cut is dropped after each level, so that no pixel that is kept has seen the cut. Nothing is blended.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from wan22_inference.engine.vae.history import History


class Level(Protocol):
    """A part of a decoder or encoder whose pixels see others only near to them."""

    reach: int
    """Pixels of the input, to each side, beyond those that cover the output; even where `down` is 2."""
    up: int
    """Pixels a side that come of one."""
    down: int
    """Pixels a side that become one."""

    def __call__(self, x: Tensor, history: History) -> Tensor:
        """(B, C, T, H, W) to (B, C', T', H x up / down, W x up / down)."""
        ...


Span = tuple[int, int]
"""Begin and end of rows or columns."""


@dataclass
class Tile:
    """One tile of a video's frames: what each level reads, and last what the tile makes."""

    rows: list[Span]
    columns: list[Span]


@dataclass(frozen=True)
class Piece:
    """What one tile makes of one chunk."""

    index: int
    """Of the chunk."""
    tile: Tile
    values: Tensor
    """(B, C, T, H, W) of the tile."""
    size: Span
    """Rows and columns of what all tiles make together."""

    def put_into(self, whole: Tensor) -> None:
        """Writes it where it belongs in what all tiles make of the chunk."""
        whole[:, :, :, slice(*self.tile.rows[-1]), slice(*self.tile.columns[-1])] = self.values


class TiledLevels:
    """Levels of one decoder or encoder over frames of one size."""

    def __init__(self, levels: Sequence[Level], height: int, width: int, side: int | None) -> None:
        """`height` and `width` are of the input; a tile makes at most `side` x `side` times the input's pixels.

        `side` is in pixels of the level with the fewest, the latents'; None is one tile for all.
        """
        self._levels = levels
        self._tiles = [
            Tile(rows, columns) for rows in _spans(levels, height, side) for columns in _spans(levels, width, side)
        ]
        last = self._tiles[-1]
        self.size = last.rows[-1][1], last.columns[-1][1]
        """Rows and columns of what they make."""

    @property
    def whole(self) -> bool:
        """Whether one tile is the whole frame: then pieces come in order of their chunks."""
        return len(self._tiles) == 1

    def __call__(self, chunks: Iterable[Tensor]) -> Iterator[Piece]:
        """A video's chunks (B, C, T, H, W), in order, through all levels, tile after tile."""
        kept = chunks if self.whole else list(chunks)
        for tile in self._tiles:
            history = History()
            for index, chunk in enumerate(kept):
                yield Piece(index, tile, self._run(chunk, tile, history), self.size)
                history.first = False

    def _run(self, x: Tensor, tile: Tile, history: History) -> Tensor:
        x = x[:, :, :, slice(*tile.rows[0]), slice(*tile.columns[0])]
        for index, level in enumerate(self._levels):
            x = level(x, history)
            row, column = (made(level, spans[index])[0] for spans in (tile.rows, tile.columns))
            (top, bottom), (left, right) = tile.rows[index + 1], tile.columns[index + 1]
            x = x[:, :, :, top - row : bottom - row, left - column : right - column]
        return x


def made(level: Level, read: Span) -> Span:
    """What a level makes of the pixels that it reads."""
    return read[0] * level.up // level.down, read[1] * level.up // level.down


def read_by(level: Level, makes: Span, size: int) -> Span:
    """What a level must read, of `size` pixels, to make the given ones right."""
    begin = makes[0] * level.down // level.up - level.reach
    end = math.ceil(makes[1] * level.down / level.up) + level.reach
    return max(0, begin), min(size, end)


def _spans(levels: Sequence[Level], size: int, side: int | None) -> list[list[Span]]:
    """For each tile along one axis, what each level reads and last what the tile makes."""
    sizes = [size]
    for level in levels:
        sizes.append(made(level, (0, sizes[-1]))[1])
    latents, result = min(sizes), sizes[-1]
    count = 1 if side is None else math.ceil(latents / side)
    tiles = []
    for index in range(count):
        begin, end = (latents * i // count * (result // latents) for i in (index, index + 1))
        spans = [(begin, end)]
        for level, width in zip(reversed(levels), reversed(sizes[:-1]), strict=True):
            spans.insert(0, read_by(level, spans[0], width))
        tiles.append(spans)
    return tiles


def to_channels_last(x: Tensor) -> Tensor:
    """(B, C, T, H, W) with the channels of a pixel side by side in memory."""
    return x.contiguous(memory_format=torch.channels_last_3d)
