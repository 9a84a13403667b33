"""Has a tiny variant's expert of the most noise learn from the family's own videos, of which a judge picks the right.

`python -m tools.train_on_own t2v-a14b-tiny --judge FILE --out DIR --seconds 400`. Of true clips and any noise an expert
learns at best the mean of all clips that the noise may hide, and a small one less: most of its wrong videos have an
object once too often. Here each noise comes with the video that the experts make of it, guided, so that there is
nothing left to guess; noise of which they make a wrong one is left out. Where one expert sees all noise, it goes on
learning from true clips with less.

The judge is to be another one than measures: `python -m tools.train_judge` trains one, in a folder of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from tools.train_tiny import vae
from tools.train_tiny.denoiser import Family, Kind, Lesson, Span, batch_of, follow, say_right, shifted
from tools.train_tiny.run import Pool, Run, add_options, start
from torch import Tensor, nn

from wan22.variants import VARIANTS
from wan22_testing.shapes.captions import caption
from wan22_testing.shapes.judge import Judge
from wan22_testing.shapes.world import random_scene

CLIPS = {128: 8_192, 64: 4_096}
"""By their sides: how many to learn from at a time."""
TURNS = (128, 64, 128)
NEW, EVERY = 256, 256
"""Clips that are made at a time, and steps to the next ones."""
PROMPTED = 4
"""Of five steps, those that hear their prompts."""
NOISY = 0.75
"""The sigma from which on it learns from its own videos; below, their pictures' faults would count."""
RATE = 1e-3


class Own:
    """The experts as they are, and what they make."""

    def __init__(self, family: Family, judge: Path, steps: int, shift: float) -> None:
        self.family = family
        self.sigmas = shifted(steps, shift)
        self._teachers = [family.expert(number).requires_grad_(False) for number in range(len(family.names))]
        self._judge = Judge.load(judge).to(family.run.device)
        self._left: dict[int, tuple[Tensor, ...]] = {}

    @torch.no_grad()
    def videos(self, side: int, count: int) -> tuple[Tensor, ...]:
        """Latents, text, image conditions and noise of so many videos that are read right. Raises RuntimeError."""
        while side not in self._left or len(self._left[side][0]) < count:
            made = self._made(side, count)
            left = self._left.get(side)
            self._left[side] = made if left is None else tuple(map(torch.cat, zip(left, made, strict=True)))
        found = tuple(column[:count] for column in self._left[side])
        self._left[side] = tuple(column[count:] for column in self._left[side])
        return found

    def _made(self, side: int, count: int) -> tuple[Tensor, ...]:
        run, family = self.family.run, self.family
        scenes = [random_scene(run.rng) for _ in range(count)]
        given = family.encoded(scenes, side, [caption(scene, run.rng) for scene in scenes])
        noise = torch.randn(given.latents.shape, device=run.device)
        made = follow(self._teachers, family, noise, given, self.sigmas)
        right = torch.tensor(self._judge.right(vae.decode(family.vae, made), scenes), device=run.device)
        if not right.any():
            raise RuntimeError(f"none of {count} videos is read right: train the stages' experts first")
        return tuple(column[right] for column in (made.bfloat16(), given.text, given.image, noise.bfloat16()))


def train(run: Run, variant: str, judge: Path, steps: int | None, shift: float | None) -> None:
    """Into DIR/VARIANT: the expert of the most noise."""
    family = Family(run, variant)
    own = Own(family, judge, steps or family.variant.num_inference_steps, shift or family.variant.flow_shift)
    lesson = Lesson(family, 0)
    noisy, rest = max(NOISY, lesson.span[0]), (lesson.span[0], NOISY)

    def save(average: nn.Module) -> None:
        lesson.save(average)
        stored = [family.expert(number) for number in range(len(family.names))]
        for scale in (1.0, 1.5, 2.0):
            run.say(f"guidance {scale:g}:")
            scales = (scale, family.variant.guidance_scale_low or scale)
            say_right(family, lambda x, given: follow(stored, family, x, given, own.sigmas, scales))  # noqa: B023  # called at once

    def kinds(source: Callable[[int, int], tuple[Tensor, ...]], span: Span) -> list[Kind]:
        pools = {
            side: Pool(partial(source, side), run.clips(clips), batch_of(family, side), new=NEW, every=EVERY)
            for side, clips in CLIPS.items()
        }
        prompted, unprompted = partial(lesson.prompted, span=span), partial(lesson.unprompted, span=span)
        heard = [(pools[side], prompted) for side in TURNS]
        return [*heard * PROMPTED, *((pools[side], unprompted) for side in TURNS)]

    learnt = kinds(own.videos, (noisy, 1.0))
    if rest[0] < rest[1]:
        true = kinds(family.examples, rest)
        learnt = [kind for both in zip(learnt, true, strict=True) for kind in both]
    run.say("the first videos are made")
    lesson.fit(learnt, save, rate=RATE)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.train_on_own", description=__doc__.partition("\n")[0])
    parser.add_argument("variant", choices=[name for name, variant in VARIANTS.items() if variant.small])
    parser.add_argument("--judge", type=Path, required=True, metavar="FILE", help="who picks: not who measures")
    parser.add_argument("--steps", type=int, help="in which its videos are made; the variant's by default")
    parser.add_argument("--shift", type=float, help="of their sigmas, likewise")
    add_options(parser)
    given = parser.parse_args()
    train(start("own", given), given.variant, given.judge, given.steps, given.shift)


if __name__ == "__main__":
    main()
