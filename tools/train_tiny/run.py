"""One stage's run: its device, its folder, its time, and the loop that all stages share."""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

SAVE_SECONDS = 60.0
SAY_SECONDS = 15.0


def store(module: Any, like: nn.Module, folder: Path) -> None:
    """Writes the weights of `like` as bf16 into a folder, by a new module of its kind that can write itself."""
    weights = {name: value.bfloat16() for name, value in like.state_dict().items()}
    module.load_state_dict(weights, assign=True)
    module.save_pretrained(folder)


@dataclass
class Run:
    """What a stage is given."""

    stage: str
    out: Path
    device: torch.device
    seconds: float
    batch_size: int | None
    clip_count: int | None

    def __post_init__(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        self.rng = random.Random(self.stage)  # noqa: S311  # scenes, not secrets
        torch.manual_seed(self.rng.getrandbits(32))
        self.generator = torch.Generator(self.device).manual_seed(self.rng.getrandbits(32))

    def batch(self, usual: int) -> int:
        """Clips a step."""
        return self.batch_size or usual

    def clips(self, usual: int) -> int:
        """Clips to learn from."""
        return self.clip_count or usual

    def say(self, text: str) -> None:
        """Prints a line at once."""
        sys.stdout.write(f"{self.stage}: {text}\n")
        sys.stdout.flush()

    def fit(
        self,
        modules: Sequence[nn.Module],
        loss: Callable[[], Tensor],
        save: Callable[[Sequence[Any]], None],
        rate: float = 2e-3,
    ) -> None:
        """Trains modules until the time is over, and saves their averages.

        The learning rate rises to its peak in the first hundredth of that time and falls to nothing along a cosine.
        """
        parameters = [one for module in modules for one in module.parameters() if one.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=0.0, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        mean = get_ema_multi_avg_fn(0.999)  # type: ignore[no-untyped-call]
        averages = [AveragedModel(module, multi_avg_fn=mean) for module in modules]
        saved = said = time.monotonic()
        for step, passed in self._steps():
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, passed * 100) * 0.5 * (1 + math.cos(math.pi * passed))
            value = loss()
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if step % 4 == 0:  # four steps of 0.99975 are one of 0.999
                for average, module in zip(averages, modules, strict=True):
                    average.update_parameters(module)
            if time.monotonic() - said > SAY_SECONDS or step == 0:
                self.say(f"step {step}, {passed:.0%} of the time, loss {value.item():.5f}")
                said = time.monotonic()
            if time.monotonic() - saved > SAVE_SECONDS:
                save([average.module for average in averages])
                saved = time.monotonic()
        save([average.module for average in averages])

    def _steps(self) -> Iterator[tuple[int, float]]:
        begin, step = time.monotonic(), 0
        while (passed := (time.monotonic() - begin) / self.seconds) < 1:
            yield step, passed
            step += 1
