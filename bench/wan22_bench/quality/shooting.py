"""Makes the videos of takes and has the judge read them; in several processes, where the device has time for more."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wan22.variants import VARIANTS
from wan22_bench.quality.answers import Answers, Shown
from wan22_bench.quality.examples import held_out_prompts
from wan22_bench.quality.models import Models, NotMeasured
from wan22_bench.quality.pictures import as_levels, as_values, square_error
from wan22_bench.quality.sheet import VIDEOS, Shot
from wan22_bench.quality.studio import Sampling, Studio
from wan22_bench.quality.takes import TAKES
from wan22_testing.forwards import free_memory
from wan22_testing.shapes.judge import Judge, Reading

Tell = Callable[[str, int, int, int], None]
"""Hears of a row how many are done, of how many, and how many of them were right."""


@dataclass(frozen=True)
class Taken:
    """What came of the videos of one take."""

    answers: Answers
    first_frames: Sequence[float]
    """Square errors to the given ones; empty where none is given."""
    shots: Sequence[Shot]
    """The first videos."""


@dataclass(frozen=True)
class Shooting:
    """What all takes have in common."""

    models: Models
    sampling: Sampling
    prompts: int
    tell: Tell

    def take(self, name: str) -> Taken | NotMeasured:
        """All videos of one take, or why there are none."""
        try:
            with tempfile.TemporaryDirectory() as folder:
                return self._make(name, Path(folder))
        except NotMeasured as reason:
            return reason
        finally:
            self._give_back()

    def takes(self, names: Sequence[str], processes: int) -> list[Taken | NotMeasured]:
        """Those of several takes, in their order; so many at a time, each in a process, but for those to be alone."""
        together = [name for name in names if not TAKES[name].alone]
        found: dict[str, Taken | NotMeasured] = {}
        if min(processes, len(together)) > 1:
            threads = max(1, len(os.sched_getaffinity(0)) // processes)
            context = multiprocessing.get_context("spawn")  # a forked process has no CUDA
            workers = min(processes, len(together))
            with ProcessPoolExecutor(workers, context, torch.set_num_threads, (threads,)) as pool:
                found = dict(zip(together, pool.map(self.take, together), strict=True))
        return [found[name] if name in found else self.take(name) for name in names]

    def _make(self, name: str, folder: Path) -> Taken:
        take, device = TAKES[name], self.models.device
        if take.absent is not None:
            raise NotMeasured(take.absent)
        judge, variant = self.models.judge(), VARIANTS[take.variant]
        side = self.sampling.side_of(variant)
        options = take.engine(side // variant.spatial_stride)
        model = self.models.model(take.variant, options, folder if take.fp8 else None)
        studio = Studio(
            model=model,
            sampling=self.sampling,
            economy=options.economy,
            turbo=self.models.turbo(model) if take.turbo else None,
            resumed=take.resumed,
        )
        shots, errors = list[Shot](), list[float]()
        wanted, read = list[Shown](), list[Shown]()
        for example in held_out_prompts(self.prompts):
            given = as_levels(example.true_clip(side)[:, 0]) if take.first_frame else None
            video = studio.video(example, given)
            if given is not None:
                errors.append(square_error(video[:, 0], as_values([given])[:, 0]))
            wanted.append(frozenset(example.scene.groups))
            read.append(read_by(judge, video, device))
            if len(shots) < VIDEOS:
                shots.append(Shot.of(example.prompt, video, wanted[-1], read[-1]))
            right = sum(one == other for one, other in zip(wanted, read, strict=True))
            self.tell(name, len(read), self.prompts, right)
        return Taken(Answers(wanted, read), errors, shots)

    def _give_back(self) -> None:
        """What one take has held, also the limit that an option may have set."""
        device = self.models.device
        free_memory(device)
        if device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, device)


@torch.no_grad()
def read_by(judge: Judge, video: Tensor, device: torch.device) -> Shown:
    """What it reads from a video (3, frames, side, side) on the CPU."""
    reading: Reading = judge(video.unsqueeze(0).to(device))
    return reading.groups()[0]
