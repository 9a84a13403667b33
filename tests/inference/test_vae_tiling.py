"""How far the levels of both VAEs see, by what changes when one column of their input does.

Differences between tiles and the whole tell little of that: at the edge of what a pixel sees, random weights leave less
than any tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from wan22_inference.engine.vae.tiling import Level, TiledLevels, read_by

from . import vaes

KINDS = ["2.1", "2.2"]
HEIGHT = 2
NUM_CHUNKS = 3
"""The second is the first to double or halve time, the third the first to have such a past."""


def changed_columns(levels: Sequence[Level], channels: int, count: int, width: int, column: int) -> tuple[int, int]:
    """The first column of the output that changes with one of the input, and the one after the last."""
    generator = torch.Generator().manual_seed(0)
    sizes = [1] + [count] * (NUM_CHUNKS - 1)
    chunks = [torch.randn(1, channels, size, HEIGHT, width, generator=generator) for size in sizes]
    others = [chunk.clone() for chunk in chunks]
    for other in others:
        other[..., column] += 10.0
    run = TiledLevels(levels, HEIGHT, width, None)
    changed = torch.zeros(0)
    for before, after in zip(run(chunks), run(others), strict=True):
        found = (before.values != after.values).any(dim=3).flatten(0, 2).any(dim=0)
        changed = found if not changed.numel() else changed | found
    columns = changed.nonzero().flatten()
    return int(columns[0]), int(columns[-1]) + 1


def check_reach(level: Any, channels: int, count: int) -> None:
    width = 32
    for column in (15, 16):  # one of either half of a pair
        for output in range(*changed_columns([level], channels, count, width, column)):
            first, last = read_by(level, (output, output + 1), width)
            assert first <= column < last, f"output {output} sees {column}, a tile would read {first} to {last}"


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_no_level_of_the_decoder_sees_farther_than_it_says(kind: str) -> None:
    decoder = vaes.both(kind)[0].decoder
    count = 1
    block: Any
    for block in decoder.blocks:
        check_reach(block, block.resnets[0].first.conv.weight.shape[1], count)
        count *= 2 if block.doubles_time else 1
    check_reach(decoder.head, decoder.head.conv.weight.shape[1], count)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_no_level_of_the_encoder_sees_farther_than_it_says(kind: str) -> None:
    encoder = vaes.both(kind)[0].encoder
    count = 4
    check_reach(encoder.conv_in, encoder.conv_in.weight.shape[1], count)
    block: Any
    for block in encoder.blocks:
        check_reach(block, block.resnets[0].first.conv.weight.shape[1], count)
        count //= 2 if block.halves_time else 1


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_latent_reaches_pixels_of_twelve_and_a_quarter_latents_around_it(kind: str) -> None:
    decoder = vaes.both(kind)[0].decoder
    levels: list[Level] = [*decoder.blocks, decoder.head]
    begin, end = changed_columns(levels, decoder.conv_in.weight.shape[0], 1, 32, 15)
    assert (15 - begin / 8, end / 8 - 16) == (12.25, 12.25)
