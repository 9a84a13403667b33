"""Trains the judge, on the generator's clips alone, roughened so that it does not mind what a VAE does to a picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tools.train_tiny.run import Run
from torch import Tensor
from torch.nn import functional

from wan22_testing.shapes.judge import Judge, Reading
from wan22_testing.shapes.world import Scene, random_scene, render

FILE = "judge.safetensors"


def train(run: Run) -> None:
    """Into DIR/judge.safetensors."""
    file = run.out / FILE
    judge = (Judge.load(file) if file.exists() else Judge()).to(run.device).train()
    batch = run.batch(256)

    def loss() -> Tensor:
        scenes, clips = _scenes(run, batch)
        with torch.autocast(run.device.type, torch.bfloat16):
            reading: Reading = judge(_roughened(clips, run.generator))
        return reading.loss(scenes)

    def save(averages: Sequence[Judge]) -> None:
        (average,) = averages
        average.save(file)
        stored = Judge.load(file).to(run.device)
        right = []
        for _ in range(4):
            scenes, clips = _scenes(run, batch)
            right += stored.right(clips, scenes)
        run.say(f"{sum(right) / len(right):.2%} of {len(right)} new clips read right")

    run.fit([judge], loss, save)


def _scenes(run: Run, count: int) -> tuple[list[Scene], Tensor]:
    scenes = [random_scene(run.rng) for _ in range(count)]
    return scenes, render(scenes, 64, run.generator)


def _roughened(clips: Tensor, generator: torch.Generator) -> Tensor:
    """Blurred, noisy, brighter or darker, each clip in its own measure."""

    def draw() -> Tensor:
        return torch.rand(len(clips), 1, 1, 1, 1, generator=generator, device=clips.device)

    blurred = functional.avg_pool3d(clips, (1, 3, 3), 1, (0, 1, 1), count_include_pad=False)
    clips = torch.lerp(clips, blurred, draw())
    noise = torch.randn(clips.shape, generator=generator, device=clips.device)
    return clips * (0.85 + 0.2 * draw()) + 0.1 * (draw() - 0.5) + 0.15 * draw() ** 2 * noise
