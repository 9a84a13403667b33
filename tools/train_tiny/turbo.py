"""The turbo student: LoRA products that let the two t2v experts go in one step where the guided teacher took many.

The teacher's path from noise to clip is cut at the four sigmas of profile `turbo`; for each piece the student learns
the straight velocity from its start to its end. Most of the starts are where the student itself would have come to.
The last piece is where most is lost, so that the low-noise student then learns on alone, as stage `turbo-low`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tools.train_tiny.denoiser import Examples, Family, follow, say_right, velocity
from tools.train_tiny.run import Pool, Run
from torch import Tensor, nn

from wan22.adapter import ADAPTER_FILE, WEIGHTS_FILE, Adapter, Expert

SIGMAS = (1.0, 0.9375, 5 / 6, 0.625, 0.0)
EXPERT_NAMES: tuple[Expert, ...] = ("high", "low")
EXPERTS = (0, 0, 1, 1)
"""Which expert takes each step: by index, not by the boundary."""
PIECES = (4, 4, 6, 12)
"""The teacher's steps in each."""
RANK = 6
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2"]
"""Of diffusers' WanTransformer3DModel."""
WEIGHTS = (1, 1, 1, 4)
"""Of the pieces in the loss: the last is the longest, and no later one mends what it does."""
ALONE = 0.75
"""How often the starts are where the student itself comes to."""
TINY = 1e-6
SIDES = ((64, 128, 4096), (128, 64, 1024))
"""Sides of the clips, paths a step, and paths to learn from at a time."""


class Lesson:
    """The teachers, and the students that learn from their paths."""

    def __init__(self, run: Run, first: int) -> None:
        """`first` is the first piece that is learnt."""
        self.run, self.first, self.family = run, first, Family(run, "t2v-a14b-tiny")
        self.teachers = [self.family.expert(number).requires_grad_(False) for number in (0, 1)]
        self.students = [self.family.expert(number).requires_grad_(False) for number in (0, 1)]
        for student, name in zip(self.students, EXPERT_NAMES, strict=True):
            student.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LAYERS))
            if (stored := run.out / "turbo" / name / WEIGHTS_FILE).exists():
                products = {key.removeprefix("transformer."): value for key, value in load_file(stored).items()}
                set_peft_model_state_dict(student, products, adapter_name="default")
        if first:  # what the high-noise student takes is no longer learnt
            self.students[0].requires_grad_(False)
        self.quick = [run.quick(student) for student in self.students]

    def paths(self, side: int, count: int) -> tuple[Tensor, ...]:
        """Captions, image conditions, starts of the pieces to learn, and the velocities that lead to each one's end."""
        given = self.family.examples(side, count)
        x = torch.randn(given.latents.shape, device=self.run.device)
        alone = self.first > 0 or self.run.rng.random() < ALONE
        starts, velocities = [], []
        for piece, (sigma, following) in enumerate(pairwise(SIGMAS)):
            if piece >= self.first:
                end = self.taught(x, piece, given)
                starts.append(x)
                velocities.append((end - x) / (following - sigma))
            x = self.step(self.students, x, piece, given) if alone else end
        return given.text, given.image, torch.stack(starts, 1), torch.stack(velocities, 1)

    def taught(self, x: Tensor, piece: int, given: Examples) -> Tensor:
        """Where the teacher comes to in its many steps of one piece."""
        sigma, following = SIGMAS[piece : piece + 2]
        inner = [sigma + (following - sigma) * part / PIECES[piece] for part in range(PIECES[piece] + 1)]
        return follow(self.teachers, self.family, x, given, inner)

    def loss(self, text: Tensor, image: Tensor, starts: Tensor, velocities: Tensor) -> Tensor:
        """How far the velocities of one batch are off, over the four pieces: of each place the length, not its square.

        A square would have a place that may become one thing or another be something between.
        """
        total = torch.zeros((), device=self.run.device)
        for piece, (start, wanted) in enumerate(zip(starts.unbind(1), velocities.unbind(1), strict=True), self.first):
            made = self.velocity(self.quick, start, piece, Examples(start, text, image))
            total = total + WEIGHTS[piece] * ((made - wanted).square().mean(1) + TINY).sqrt().mean()
        return total

    def velocity(self, students: Sequence[nn.Module], x: Tensor, piece: int, given: Examples) -> Tensor:
        """The student's, at one of the four sigmas."""
        at = torch.full((len(x),), SIGMAS[piece], device=x.device)
        return velocity(self.family.variant, students[EXPERTS[piece]], x, at, given)

    @torch.no_grad()
    def step(self, students: Sequence[nn.Module], x: Tensor, piece: int, given: Examples) -> Tensor:
        """One of the four steps."""
        return x + (SIGMAS[piece + 1] - SIGMAS[piece]) * self.velocity(students, x, piece, given)

    def save(self, averages: Sequence[nn.Module]) -> None:
        """Writes an adapter for each expert, as the registry takes them."""
        for name, average in zip(EXPERT_NAMES, averages, strict=True):
            folder = self.run.out / "turbo" / name
            folder.mkdir(parents=True, exist_ok=True)
            products = get_peft_model_state_dict(average, adapter_name="default")
            stored = {f"transformer.{key}": value.to("cpu", torch.bfloat16) for key, value in products.items()}
            save_file(stored, folder / WEIGHTS_FILE)
            base = self.family.variant.name
            adapter = Adapter(
                base_variant=base, target_expert=name, min_strength=0.0, max_strength=1.0, turbo=True, alpha=RANK
            )
            (folder / ADAPTER_FILE).write_bytes(adapter.to_json())

        def make(x: Tensor, given: Examples) -> Tensor:
            for piece in range(len(PIECES)):
                x = self.step(averages, x, piece, given)
            return x

        say_right(self.family, make)


def train(run: Run, first: int = 0) -> None:
    """Into DIR/turbo/high and DIR/turbo/low: an adapter for each expert, which learns the pieces from `first` on."""
    lesson = Lesson(run, first)
    pools = [
        Pool(partial(lesson.paths, side), run.clips(count), run.batch(batch), every=48) for side, batch, count in SIDES
    ]
    run.say("the teacher's first paths are there")
    run.fit(lesson.students, [(pool, lesson.loss) for pool in pools], lesson.save)
