"""Prompts and clips to measure with: always the same, drawn from seeds of their own that no training has."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from wan22_testing.shapes.captions import caption
from wan22_testing.shapes.world import Scene, random_scene, render

PROMPTS_SEED = "held-out prompts of wan22 bench quality"
CLIPS_SEED = "held-out clips of wan22 bench quality"
_PAIRS = ((1, 1), (2,))
"""Objects of the groups of a scene with two."""
_PAIRS_SHARES = (0.3, 0.12)
"""As often as the models have seen them."""
_RENDERED = 8
"""Clips at a time."""


@dataclass(frozen=True)
class Example:
    """What is asked for."""

    scene: Scene
    prompt: str
    seed: int
    """Of the generation, and of the true clip."""

    @property
    def objects(self) -> int:
        """How many its prompt names."""
        return len(self.scene.objects)

    def true_clip(self, side: int) -> Tensor:
        """A clip (3, frames, side, side) in [-1, 1] that shows it, on the CPU."""
        return render([self.scene], side, Generator().manual_seed(self.seed))[0]


def held_out_prompts(count: int, seed: str = PROMPTS_SEED) -> list[Example]:
    """By turns of one object and of two; a longer list begins with the shorter one."""
    rng = random.Random(seed)  # noqa: S311  # scenes, not secrets
    found = []
    for number in range(count):
        numbers = (1,) if number % 2 == 0 else rng.choices(_PAIRS, _PAIRS_SHARES)[0]
        scene = random_scene(rng, numbers=numbers)
        found.append(Example(scene, caption(scene, rng), rng.getrandbits(63)))
    return found


def held_out_clips(count: int, side: int) -> Iterator[tuple[list[Scene], Tensor]]:
    """True clips of one to three objects, (clips, 3, frames, side, side) on the CPU, a few at a time."""
    rng = random.Random(CLIPS_SEED)  # noqa: S311  # scenes, not secrets
    generator = torch.Generator().manual_seed(rng.getrandbits(63))
    for begin in range(0, count, _RENDERED):
        scenes = [random_scene(rng) for _ in range(min(_RENDERED, count - begin))]
        yield scenes, render(scenes, side, generator)
