"""Has a tiny variant's expert of the most noise learn from the family's own videos, of which a judge picks the right.

`python -m tools.train_on_own t2v-a14b-tiny --judge FILE --out DIR --seconds 400`. Of true clips and any noise an expert
learns at best the mean of all clips that the noise may hide, and a small one less: most of its wrong videos have an
object once too often. Here each noise comes with the video that the experts make of it, guided, so that there is
nothing left to guess; noise of which they make a wrong one is left out. Every other step still has true clips.

The judge is to be another one than measures: `python -m tools.train_judge` trains one, in a folder of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from tools.train_tiny import vae
from tools.train_tiny.denoiser import (
    CLIPS,
    COMPILED_SECONDS,
    TOKENS,
    Examples,
    Family,
    flow_loss,
    follow,
    say_right,
    shifted,
)
from tools.train_tiny.run import Pool, Run, add_options, start, store
from torch import Tensor

from wan22.variants import VARIANTS
from wan22_testing.shapes.captions import caption
from wan22_testing.shapes.judge import Judge
from wan22_testing.shapes.world import FRAMES, random_scene

SIDES = ((128, 8_192), (64, 8_192))
"""Sides of the clips, and clips to learn from at a time."""
NEW, EVERY = 256, 32
"""Clips that are made at a time, and steps to the next ones."""
NOISY = 0.75
"""The sigma from which on it learns from its own videos; below, their pictures' faults would count."""
RATE = 7e-4


class Own:
    """The experts as they are, and what they make."""

    def __init__(self, run: Run, variant: str, judge: Path) -> None:
        self.run, self.family = run, Family(run, variant)
        self.teachers = [self.family.expert(number).requires_grad_(False) for number in range(len(self.family.names))]
        self.sigmas = shifted(self.family.variant.num_inference_steps, self.family.variant.flow_shift)
        self._judge = Judge.load(judge).to(run.device)

    @torch.no_grad()
    def videos(self, side: int, count: int) -> tuple[Tensor, ...]:
        """Latents, text, image conditions and noise of so many videos that are read right. Raises RuntimeError."""
        kept: list[tuple[Tensor, ...]] = []
        while sum(len(columns[0]) for columns in kept) < count:
            scenes = [random_scene(self.run.rng) for _ in range(count)]
            given = self.family.encoded(scenes, side, [caption(scene, self.run.rng) for scene in scenes])
            noise = torch.randn(given.latents.shape, device=self.run.device)
            made = follow(self.teachers, self.family, noise, given, self.sigmas)
            right = torch.tensor(self._judge.right(vae.decode(self.family.vae, made), scenes), device=self.run.device)
            if not right.any():
                raise RuntimeError(f"none of {count} videos is read right: train the stages' experts first")
            columns = (made.bfloat16(), given.text, given.image, noise.bfloat16())
            kept.append(tuple(column[right] for column in columns))
        return tuple(torch.cat(columns)[:count] for columns in zip(*kept, strict=True))


def train(run: Run, variant: str, judge: Path) -> None:
    """Into DIR/VARIANT: the expert of the most noise."""
    own = Own(run, variant, judge)
    family = own.family
    expert = family.expert(0)
    long = run.device.type == "cuda" and run.seconds > COMPILED_SECONDS
    quick: Any = torch.compile(expert, dynamic=False) if long else expert
    span = (max(NOISY, family.spans[0][0]), family.spans[0][1])

    def of_own(*columns: Tensor) -> Tensor:
        return flow_loss(family.variant, quick, span, Examples(*columns[:3]), columns[3].float())

    def of_true(*columns: Tensor) -> Tensor:
        return flow_loss(family.variant, quick, family.spans[0], Examples(*columns))

    def unprompted(*columns: Tensor) -> Tensor:
        given = Examples(*columns)
        text = family.unprompted.repeat(len(given.text) // 2 + 1, 1, 1)[: len(given.text)]
        return flow_loss(family.variant, quick, family.spans[0], given._replace(text=text))

    def save(averages: Sequence[Any]) -> None:
        sizes = {name: value for name, value in expert.config.items() if name != "_name_or_path"}  # of who trained it
        store(WanTransformer3DModel.from_config(sizes), averages[0], family.folder / family.names[0])
        stored = [family.expert(number) for number in range(len(family.names))]
        for scale in (1.0, 1.5, 2.0):
            run.say(f"guidance {scale:g}:")
            say_right(family, partial(guided, stored, scale))

    def guided(experts: Sequence[Any], scale: float, x: Tensor, given: Examples) -> Tensor:
        return follow(experts, family, x, given, own.sigmas, (scale, family.variant.guidance_scale_low or scale))

    kinds = []
    for side, clips in SIDES:
        batch = run.batch(min(CLIPS, TOKENS // family.variant.tokens(side, side, FRAMES)))
        made = Pool(partial(own.videos, side), run.clips(clips), batch, new=NEW, every=EVERY)
        true = Pool(partial(family.examples, side), run.clips(clips), batch, new=NEW, every=EVERY)
        kinds += [(made, of_own), (true, of_true), (made, of_own), (true, unprompted)]
    run.say("the first videos are made")
    matrices = [one for one in expert.blocks.parameters() if one.ndim == 2]
    run.fit([expert], kinds, save, rate=RATE, matrices=matrices)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.train_on_own", description=__doc__.partition("\n")[0])
    parser.add_argument("variant", choices=[name for name, variant in VARIANTS.items() if variant.small])
    parser.add_argument("--judge", type=Path, required=True, metavar="FILE", help="who picks: not who measures")
    add_options(parser)
    given = parser.parse_args()
    train(start("own", given), given.variant, given.judge)


if __name__ == "__main__":
    main()
