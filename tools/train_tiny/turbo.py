"""The turbo student: LoRA products that let the two t2v experts go in one step where the guided teacher took many.

The teacher's path from noise to clip is cut at the four sigmas of profile `turbo`; for each piece the student learns
the straight velocity from its start to its end. Half of the starts are where the student itself would have come to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from tools.train_tiny.denoiser import SIDES, Examples, Family, follow, say_right, velocity
from tools.train_tiny.run import Run
from tools.train_tiny.text import padded
from torch import Tensor, nn

from wan22.adapter import ADAPTER_FILE, WEIGHTS_FILE, Adapter

SIGMAS = (1.0, 0.9375, 5 / 6, 0.625, 0.0)
EXPERTS = (0, 0, 1, 1)
"""Which expert takes each step: by index, not by the boundary."""
PIECES = (4, 4, 6, 12)
"""The teacher's steps in each."""
RANK = 8
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2"]
"""Of diffusers' WanTransformer3DModel."""
ALONE = 0.5
"""How often the starts are where the student itself comes to."""
FRESH_EVERY, KEPT = 8, 64
"""Steps between new paths, and batches of paths that are learnt from."""


@dataclass(frozen=True)
class Paths:
    """A batch's starts of the four pieces, and the velocity that leads to each one's end."""

    given: Examples
    text: Tensor
    starts: list[Tensor]
    velocities: list[Tensor]


class Lesson:
    """The teachers, the students, and the paths that these learn from."""

    def __init__(self, run: Run) -> None:
        self.run, self.family = run, Family(run, "t2v-a14b-tiny")
        teachers = [self.family.expert(number).requires_grad_(False) for number in (0, 1)]
        self.students = [self.family.expert(number).requires_grad_(False) for number in (0, 1)]
        for student in self.students:
            student.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LAYERS))
        quick = torch.compile if run.device.type == "cuda" else lambda module, **_: module
        self.teachers: list[Any] = [quick(teacher, dynamic=False) for teacher in teachers]
        self.forwards: list[Any] = [quick(student, dynamic=False) for student in self.students]
        self.examples = [self.family.examples(side, run.clips(8192)) for side, _, _ in SIDES]
        self.nothing = self.family.text.unprompted()[:1]
        self.kept: list[Paths] = []
        self.steps = 0

    def paths(self) -> Paths:
        """New ones."""
        run = self.run
        which = self.steps // FRESH_EVERY % len(SIDES)
        have, count = self.examples[which], run.batch(SIDES[which][1])
        given = have[torch.randint(len(have.latents), (count,), generator=run.generator, device=run.device)]
        texts = (padded(given.text).float(), self.nothing.expand(count, -1, -1))
        x = torch.randn(given.latents.shape, generator=run.generator, device=run.device)
        alone = run.rng.random() < ALONE
        starts, velocities = [], []
        for piece, (sigma, following) in enumerate(pairwise(SIGMAS)):
            inner = [sigma + (following - sigma) * part / PIECES[piece] for part in range(PIECES[piece] + 1)]
            end = follow(self.teachers, self.family, x, given, texts, inner)
            starts.append(x)
            velocities.append((end - x) / (following - sigma))
            x = turbo_step(self.forwards, x, piece, given, texts[0]) if alone else end
        return Paths(given, texts[0], starts, velocities)

    def loss(self) -> Tensor:
        """Mean square error of the velocities of one batch, over the four pieces."""
        if self.steps % FRESH_EVERY == 0:
            self.kept = [*self.kept[1 - KEPT :], self.paths()]
        self.steps += 1
        paths = self.run.rng.choice(self.kept)
        total = torch.zeros((), device=self.run.device)
        for piece, (start, wanted) in enumerate(zip(paths.starts, paths.velocities, strict=True)):
            at = torch.full((len(start),), SIGMAS[piece], device=self.run.device)
            made = velocity(self.forwards[EXPERTS[piece]], start, at, paths.given, paths.text)
            total = total + (made - wanted).square().mean()
        return total

    def save(self, averages: Sequence[nn.Module]) -> None:
        """Writes an adapter for each expert, as the registry takes them."""
        for name, average in zip(("high", "low"), averages, strict=True):
            folder = self.run.out / "turbo" / name
            folder.mkdir(parents=True, exist_ok=True)
            products = get_peft_model_state_dict(average, adapter_name="default")
            stored = {f"transformer.{key}": value.to("cpu", torch.bfloat16) for key, value in products.items()}
            save_file(stored, folder / WEIGHTS_FILE)
            adapter = Adapter(
                base_variant=self.family.variant.name,
                target_expert="high" if name == "high" else "low",
                min_strength=0.0,
                max_strength=1.0,
                turbo=True,
                alpha=RANK,
            )
            (folder / ADAPTER_FILE).write_bytes(adapter.to_json())

        def make(x: Tensor, given: Examples, texts: Sequence[Tensor]) -> Tensor:
            for piece in range(len(PIECES)):
                x = turbo_step(averages, x, piece, given, texts[0])
            return x

        say_right(self.family, make)


def train(run: Run) -> None:
    """Into DIR/turbo/high and DIR/turbo/low: an adapter for each expert."""
    lesson = Lesson(run)
    run.fit(lesson.students, lesson.loss, lesson.save)


@torch.no_grad()
def turbo_step(students: Sequence[nn.Module], x: Tensor, piece: int, given: Examples, text: Tensor) -> Tensor:
    """One of the four steps."""
    at = torch.full((len(x),), SIGMAS[piece], device=x.device)
    return x + (SIGMAS[piece + 1] - SIGMAS[piece]) * velocity(students[EXPERTS[piece]], x, at, given, text)
