"""One stage's run: its device, its folder, its time, and the loop that all stages share.

Several GPUs train one model by averaging it now and then: each takes steps of its own, on clips of its own.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from tools.muon import Muon
from tools.recorded import recorded
from tools.together import Together, join
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

SAVE_SECONDS = 240.0
SAY_SECONDS = 20.0
COMPILED_SECONDS = 300.0
"""Compiling takes a minute, and makes steps more than twice as quick."""
AVERAGE_EVERY = 16
"""Steps."""


@torch.no_grad()
def remember(averages: Sequence[Tensor], values: Sequence[Tensor], count: Tensor | int) -> None:
    """Moving averages, which forget in a tenth of the steps so far, and in 4000 at most."""
    share = max(AVERAGE_EVERY / 4000, 10 / (10 + int(count)))
    for average, value in zip(averages, values, strict=True):
        average.lerp_(value, share)


def store(module: Any, like: nn.Module, folder: Path) -> None:
    """Writes the weights of `like` as bf16 into a folder, by a new module of its kind that can write itself."""
    weights = {name: value.bfloat16() for name, value in like.state_dict().items()}
    module.load_state_dict(weights, assign=True)
    module.save_pretrained(folder)


class Pool:
    """Rows to learn from, of which the oldest give place to new ones while they are learnt from."""

    def __init__(
        self, make: Callable[[int], tuple[Tensor, ...]], count: int, batch: int, *, new: int = 256, every: int = 16
    ) -> None:
        """`make` makes that many rows, in columns; `new` of them are made at a time, one time in `every` batches."""
        self._make, self._batch, self._every = make, batch, every
        self._new = min(new, count)
        made = [make(self._new) for _ in range(0, count, self._new)]
        self._columns = tuple(torch.cat(column) for column in zip(*made, strict=True))
        self._taken = 0

    def batch(self) -> tuple[Tensor, ...]:
        """Some of the rows."""
        have = len(self._columns[0])
        self._taken += 1
        if self._taken % self._every == 0:
            at = self._taken // self._every * self._new % have
            for column, rows in zip(self._columns, self._make(self._new), strict=True):
                column[at : at + self._new] = rows
        drawn = torch.randint(have, (self._batch,), device=self._columns[0].device)
        return tuple(column[drawn] for column in self._columns)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of every stage."""
    parser.add_argument("--out", type=Path, required=True, help="the folder of all stages' weights")
    parser.add_argument("--seconds", type=float, default=500.0, help="how long to train")
    parser.add_argument("--batch", type=int, default=None, help="clips a step, where the stage's own are too many")
    parser.add_argument("--clips", type=int, default=None, help="clips to learn from, likewise")
    parser.add_argument("--seed", type=int, default=0, help="another one for other clips, where a training goes on")


def start(stage: str, given: argparse.Namespace) -> Run:
    """A stage's run, as the command line has it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    join(device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    return Run(stage, given.out, device, given.seconds, given.batch, given.clips, given.seed)


@dataclass
class Run:
    """What a stage is given."""

    stage: str
    out: Path
    device: torch.device
    seconds: float
    batch_size: int | None
    clip_count: int | None
    seed: int = 0

    def __post_init__(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        self._together = Together(self.device)
        self.rng = random.Random(f"{self.stage} {self.seed} {self._together.rank}")  # noqa: S311  # scenes, not secrets
        torch.manual_seed(self.rng.getrandbits(32))
        self.generator = torch.Generator(self.device).manual_seed(self.rng.getrandbits(32))
        self._deadline = time.monotonic() + self.seconds

    def batch(self, usual: int) -> int:
        """Clips a step."""
        return self.batch_size or usual

    def clips(self, usual: int) -> int:
        """Clips to learn from."""
        return self.clip_count or usual

    def quick(self, module: nn.Module) -> Any:
        """A module as it is to be trained, compiled where there is the time for it."""
        long = self.device.type == "cuda" and self.seconds > COMPILED_SECONDS
        return torch.compile(module, dynamic=False) if long else module

    def say(self, text: str) -> None:
        """Prints a line at once, for all processes of the stage."""
        if self._together.rank == 0:
            sys.stdout.write(f"{self.stage}: {text}\n")
            sys.stdout.flush()

    def fit(
        self,
        modules: Sequence[nn.Module],
        kinds: Sequence[tuple[Pool, Callable[..., Tensor]]],
        save: Callable[[Sequence[Any]], None],
        *,
        rate: float = 2e-3,
        graphs: bool = True,
        matrices: Sequence[nn.Parameter] = (),
    ) -> None:
        """Trains modules until the time is over, and saves their averages; `matrices` of theirs by Muon.

        The kinds of steps, each a pool and the loss of one of its batches, take turns. The learning rate rises to its
        peak in the first hundredth of the time and falls to nothing along a cosine.
        """
        parameters = [one for module in modules for one in module.parameters() if one.requires_grad]
        others = [one for one in parameters if all(one is not matrix for matrix in matrices)]
        graphs = graphs and self.device.type == "cuda"
        learning = torch.zeros((), device=self.device)
        muon = Muon(matrices, learning)
        optimizer = torch.optim.AdamW(
            others, lr=learning, betas=(0.9, 0.99), weight_decay=0.01, fused=True, capturable=graphs
        )

        def learn(loss: Callable[..., Tensor], batch: tuple[Tensor, ...]) -> Tensor:
            for parameter in parameters:
                parameter.grad = None
            value = loss(*batch)
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            muon.step()
            return value.detach()

        self._together.begin(parameters)
        prepare = recorded if graphs else lambda learn, draw: lambda: learn(draw())
        each = {(pool, loss): prepare(partial(learn, loss), pool.batch) for pool, loss in dict.fromkeys(kinds)}
        averages = [AveragedModel(module, multi_avg_fn=remember) for module in modules]
        begin = saved = said = time.monotonic()
        for step in count():
            passed = (time.monotonic() - begin) / max(1.0, self._deadline - begin)
            if self._together.meets(step) and (passed := self._together.mean(parameters, passed)) >= 1:
                break
            learning.fill_(rate * min(1.0, passed * 100) * 0.5 * (1 + math.cos(math.pi * passed)))
            value = each[kinds[step % len(kinds)]]()
            if step % AVERAGE_EVERY == 0:
                for average, module in zip(averages, modules, strict=True):
                    average.update_parameters(module)
            if time.monotonic() - said > SAY_SECONDS or step == 0:
                self.say(f"step {step}, {passed:.0%} of the time, loss {value.item():.5f}")
                said = time.monotonic()
            if time.monotonic() - saved > SAVE_SECONDS:
                self._save(save, averages)
                saved = time.monotonic()
        self._save(save, averages)
        self.say(f"done, {self.out}")

    def _save(self, save: Callable[[Sequence[Any]], None], averages: Sequence[AveragedModel]) -> None:
        if self._together.rank == 0:
            save([average.module for average in averages])
