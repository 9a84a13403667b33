"""Trains the judge of the tiny family: `python -m tools.train_judge --out DIR --seconds 300`.

It learns from the generator's clips alone, roughened so that it does not mind what a VAE does to a picture.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from tools.train_tiny.run import Pool, Run, add_options, start
from torch import Tensor
from torch.nn import functional

from wan22_testing.shapes.judge import Judge, Reading, truth
from wan22_testing.shapes.world import Scene, random_scene, render
from wan22_testing.trained_parts import JUDGE


def train(run: Run) -> None:
    """Into DIR/judge.safetensors."""
    file = run.out / JUDGE.name
    judge = (Judge.load(file) if file.exists() else Judge()).to(run.device).train()

    def rows(count: int) -> tuple[Tensor, Tensor]:
        scenes, clips = _scenes(run, count)
        return clips.bfloat16(), truth(scenes, run.device)

    def loss(clips: Tensor, wanted: Tensor) -> Tensor:
        with torch.autocast(run.device.type, torch.bfloat16):
            reading: Reading = judge(_roughened(clips.float()))
        return reading.loss(wanted)

    def save(averages: Sequence[Judge]) -> None:
        averages[0].save(file)
        stored = Judge.load(file).to(run.device)
        right = []
        for _ in range(4):
            scenes, clips = _scenes(run, run.clips(256))
            right += stored.right(clips, scenes)
        run.say(f"{sum(right) / len(right):.2%} of {len(right)} new clips read right")

    pool = Pool(rows, run.clips(16384), run.batch(128), every=8)
    run.fit([judge], [(pool, loss)], save)


def _scenes(run: Run, count: int) -> tuple[list[Scene], Tensor]:
    scenes = [random_scene(run.rng) for _ in range(count)]
    return scenes, render(scenes, 64, run.generator)


def _roughened(clips: Tensor) -> Tensor:
    """Blurred, noisy, brighter or darker, each clip in its own measure."""

    def draw() -> Tensor:
        return torch.rand(len(clips), 1, 1, 1, 1, device=clips.device)

    blurred = functional.avg_pool3d(clips, (1, 3, 3), 1, (0, 1, 1), count_include_pad=False)
    clips = torch.lerp(clips, blurred, draw())
    return clips * (0.85 + 0.2 * draw()) + 0.1 * (draw() - 0.5) + 0.15 * draw() ** 2 * torch.randn_like(clips)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.train_judge", description=__doc__.partition("\n")[0])
    add_options(parser)
    train(start("judge", parser.parse_args()))


if __name__ == "__main__":
    main()
