"""Compares trainings of a tiny variant on scenes that none has seen: which to keep, and which guidance suits it.

`python -m tools.compare_trainings t2v-a14b-tiny DIR...` prints each expert's loss in each folder, which tells more than
videos read right; then, of the experts with the least loss, the shares read right by the solver, the number of steps,
the shift of the sigmas, and each expert's guidance scale. Its prompts are others than `wan22 bench quality` asks
for, so that what is chosen by them can be measured there.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from itertools import product, starmap
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import WanTransformer3DModel
from tools.train_tiny import vae
from tools.train_tiny.denoiser import Examples, Family, finished, flow_loss, guided
from tools.train_tiny.run import Run
from torch import Generator, Tensor

from wan22.solvers import Solver
from wan22.variants import VARIANTS
from wan22_bench.quality.examples import Example, held_out_prompts
from wan22_inference.engine.devices import choose_device
from wan22_inference.engine.schedule import NUM_TRAIN_TIMESTEPS, make_schedule
from wan22_testing.shapes.judge import Judge
from wan22_testing.shapes.world import Scene
from wan22_testing.trained_parts import JUDGE

BATCH = 64
SCALES = (1.0, 1.5, 2.0, 3.0)
"""Of each expert, together with all of the other's."""
SEED = "held out of trainings"


class Course(NamedTuple):
    """How noise becomes a clip."""

    solver: Solver
    steps: int
    shift: float

    def __str__(self) -> str:
        return f"{self.solver}, {self.steps} steps, shift {self.shift:g}"


class Comparison:
    """The folders of one variant, beside each other."""

    def __init__(self, variant: str, folders: Sequence[Path], count: int, side: int) -> None:
        device = choose_device("auto")
        self._families = {
            folder: Family(Run("compared", folder, device, 0.0, None, None), variant) for folder in folders
        }
        self._first = self._families[folders[0]]
        run = self._first.run
        run.rng = random.Random(SEED)  # noqa: S311  # scenes, not secrets
        self._batches = [self._first.examples(side, min(BATCH, count)) for _ in range(0, count, BATCH)]
        asked = held_out_prompts(count, SEED)
        self.asked = [self._encoded(asked[begin : begin + BATCH], side) for begin in range(0, count, BATCH)]
        self.judge = Judge.load(folders[0] / JUDGE.name).to(device)

    @torch.no_grad()
    def losses(self, number: int) -> dict[Path, float]:
        """Of the experts of this number, over the same clips, noise and sigmas."""
        found = {}
        for folder, family in self._families.items():
            expert = family.expert(number)
            torch.manual_seed(5)
            each = [flow_loss(family.variant, expert, family.spans[number], given) for given in self._batches]
            found[folder] = float(torch.stack(each).mean())
        return found

    @torch.no_grad()
    def shares(
        self, experts: Sequence[WanTransformer3DModel], scales: Sequence[float], course: Course
    ) -> tuple[float, float]:
        """Of prompts with one object and with two, how many are read right with a guidance scale for each expert."""
        family = self._first
        torch.manual_seed(9)
        right: list[bool] = []
        for scenes, given in self.asked:
            noise = torch.randn(given.latents.shape, device=given.latents.device)
            latents = self._sampled(experts, scales, course, noise, given)
            right += self.judge.right(vae.decode(family.vae, latents), scenes)
        return sum(right[::2]) / len(right[::2]), sum(right[1::2]) / len(right[1::2])

    def _sampled(
        self,
        experts: Sequence[WanTransformer3DModel],
        scales: Sequence[float],
        course: Course,
        x: Tensor,
        given: Examples,
    ) -> Tensor:
        """By the engine's schedule and solver."""
        variant = self._first.variant
        generator = Generator().manual_seed(9)
        schedule = make_schedule(course.solver, course.steps, course.shift, variant.boundary, x.device, generator)
        for step, timestep in enumerate(schedule.timesteps):
            number = schedule.expert(step)
            v = guided(experts[number], self._first, x, timestep / NUM_TRAIN_TIMESTEPS, given, scales[number])
            x = schedule.advance(v, step, x)
        return finished(variant, x, given)

    def best(self) -> list[WanTransformer3DModel]:
        """The experts with the least loss, which it prints."""
        found = []
        for number, name in enumerate(self._first.names):
            losses = self.losses(number)
            for folder, loss in losses.items():
                sys.stdout.write(f"{name} of {folder}: loss {loss:.5f}\n")
            found.append(self._families[min(losses, key=losses.__getitem__)].expert(number))
        return found

    def _encoded(self, asked: Sequence[Example], side: int) -> tuple[list[Scene], Examples]:
        """What is asked for, without first frames where they may be left out."""
        scenes = [example.scene for example in asked]
        given = self._first.encoded(scenes, side, [example.prompt for example in asked])
        return scenes, given._replace(image=given.image * 0) if self._first.variant.image == "optional" else given


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.compare_trainings", description=__doc__.partition("\n")[0])
    parser.add_argument("variant", choices=[name for name, variant in VARIANTS.items() if variant.small])
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="of trainings")
    parser.add_argument("--count", type=int, default=256, help="clips to take the loss of, and prompts; 256 by default")
    parser.add_argument("--side", type=int, default=128, help="pixels of their width and height; 128 by default")
    parser.add_argument("--scales", nargs="+", type=float, default=SCALES, help="of guidance: for each expert all")
    parser.add_argument("--steps", nargs="+", type=int, help="by default the variant's")
    parser.add_argument("--shifts", nargs="+", type=float, help="likewise")
    named = {solver.lower(): solver for solver in Solver}
    parser.add_argument("--solvers", nargs="+", choices=named, default=["unipc"], help="unipc by default")
    given = parser.parse_args()
    comparison = Comparison(given.variant, given.folders, given.count, given.side)
    experts = comparison.best()
    variant = VARIANTS[given.variant]
    solvers = [named[solver] for solver in given.solvers]
    courses = product(solvers, given.steps or [variant.num_inference_steps], given.shifts or [variant.flow_shift])
    for course in starmap(Course, courses):
        for scales in product(given.scales, repeat=len(experts)):
            one, two = comparison.shares(experts, scales, course)
            guidance = " and ".join(f"{scale:g}" for scale in scales)
            what = f"{course}, guidance {guidance}"
            sys.stdout.write(f"{what}: right with one object {one:.3f}, with two {two:.3f}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
