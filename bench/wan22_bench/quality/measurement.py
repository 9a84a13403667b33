"""Measures rows: what the judge reads from true clips, from round trips and from generated videos."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from wan22.variants import VARIANTS
from wan22_bench.quality.answers import Answers, Shown
from wan22_bench.quality.examples import held_out_clips, held_out_prompts
from wan22_bench.quality.goals import ROWS, VAES
from wan22_bench.quality.models import Models, NotMeasured
from wan22_bench.quality.pictures import as_levels, as_values, psnr, square_error
from wan22_bench.quality.round_trips import round_trips
from wan22_bench.quality.sheet import VIDEOS, Shot
from wan22_bench.quality.studio import Sampling, Studio
from wan22_bench.quality.takes import OPTIONS, TAKES, Take
from wan22_bench.report import Figures, Row
from wan22_testing.forwards import free_memory
from wan22_testing.shapes.judge import Judge

Tell = Callable[[str, int, int, int], None]
"""Hears of a row how many are done, of how many, and how many of them were right."""


@dataclass(frozen=True)
class Taken:
    """What came of the videos of one take."""

    answers: Answers
    first_frames: Sequence[float]
    """Square errors to the given ones; empty where none is given."""


class Measurement:
    """One run; each take's videos are made once."""

    def __init__(self, models: Models, sampling: Sampling, prompts: int, clips: int, tell: Tell) -> None:
        self._models = models
        self._sampling = sampling
        self._prompts = held_out_prompts(prompts)
        self._clips = clips
        self._tell = tell
        self._taken: dict[str, Taken] = {}
        self.shots: dict[str, list[Shot]] = {}
        """The first videos of each variant, by row."""

    def rows(self, name: str) -> list[Row]:
        """The rows of one name, with their figures, or the reason why there are none."""
        empty = ROWS[name]
        try:
            values = self._values(name)
        except NotMeasured as reason:
            return [replace(row, what=f"{row.what}; not measured: {reason}") for row in empty]
        peer = self._taken["t2v"].answers.share if name in OPTIONS else None
        return [replace(row, value=value, peer=peer) for row, value in zip(empty, values, strict=True)]

    def figures(self) -> list[Figures]:
        """The shares by number of objects, and how often an option has changed what is read."""
        if not self._taken:
            return []
        columns = ("row", "steps", "side", "prompts", "right", "one object", "two objects", "read as t2v's")
        title = (
            "Shares of prompts read back right, by number of objects, and of videos read as those without the option"
        )
        return [Figures(title=title, columns=columns, rows=[self._figures(name) for name in self._taken])]

    def _figures(self, name: str) -> list[str | float]:
        answers, take = self._taken[name].answers, TAKES[name]
        variant = VARIANTS[take.variant]
        how = (self._sampling.steps_of(variant, turbo=take.turbo), self._sampling.side_of(variant), len(answers.read))
        shares = [answers.share, answers.share_with(1), answers.share_with(2)]
        same = answers.same_as(self._taken["t2v"].answers) if name in OPTIONS else None
        return [name, *how, *("" if share is None else share for share in (*shares, same))]

    def _values(self, name: str) -> list[float]:
        if name == "judge":
            return [self._of_true_clips()]
        if name in VAES:
            return self._of_round_trips(name)
        if name == "chance":
            chance = self._take("t2v").answers.chance
            if chance is None:
                raise NotMeasured("one prompt has no other")
            return [chance]
        if name in OPTIONS and not TAKES[name].absent:
            self._take("t2v")  # to compare with
        taken = self._take(name)
        return [*([psnr(taken.first_frames)] if taken.first_frames else []), taken.answers.share]

    @cached_property
    def _judge(self) -> Judge:
        return self._models.judge()

    def _of_true_clips(self) -> float:
        side, right = self._sampling.side_of(VARIANTS[VAES["vae21"]]), list[bool]()
        for scenes, clips in held_out_clips(self._clips, side):
            right += self._judge.right(clips.to(self._models.device), scenes)
            self._tell("judge", len(right), self._clips, sum(right))
        return sum(right) / len(right)

    def _of_round_trips(self, name: str) -> list[float]:
        judge, vae, device = self._judge, self._models.vae(VAES[name]), self._models.device
        errors, right = list[float](), list[bool]()
        for scenes, clips in held_out_clips(self._clips, self._sampling.side_of(VARIANTS[VAES[name]])):
            backs = list(round_trips(vae, clips, device))
            errors += [error for _, error in backs]
            right += judge.right(torch.stack([back for back, _ in backs]).to(device), scenes)
            self._tell(name, len(right), self._clips, sum(right))
        return [psnr(errors), sum(right) / len(right)]

    def _take(self, name: str) -> Taken:
        if name not in self._taken:
            take = TAKES[name]
            if take.absent is not None:
                raise NotMeasured(take.absent)
            with tempfile.TemporaryDirectory() as folder:
                self._taken[name] = self._make(name, take, Path(folder))
            self._give_back()
        return self._taken[name]

    def _make(self, name: str, take: Take, folder: Path) -> Taken:
        judge, variant = self._judge, VARIANTS[take.variant]
        side = self._sampling.side_of(variant)
        options = take.engine(side // variant.spatial_stride)
        model = self._models.model(take.variant, options, folder if take.fp8 else None)
        studio = Studio(
            model=model,
            sampling=self._sampling,
            economy=options.economy,
            turbo=self._models.turbo(model) if take.turbo else None,
            resumed=take.resumed,
        )
        shots, errors = list[Shot](), list[float]()
        wanted, read = list[Shown](), list[Shown]()
        for example in self._prompts:
            given = as_levels(example.true_clip(side)[:, 0]) if take.first_frame else None
            video = studio.video(example, given)
            if given is not None:
                errors.append(square_error(video[:, 0], as_values([given])[:, 0]))
            wanted.append(frozenset(example.scene.groups))
            read.append(read_by(judge, video, self._models.device))
            if name not in OPTIONS and len(shots) < VIDEOS:
                shots.append(Shot(example.prompt, video, wanted[-1], read[-1]))
            right = sum(one == other for one, other in zip(wanted, read, strict=True))
            self._tell(name, len(read), len(self._prompts), right)
        if shots:
            self.shots[name] = shots
        return Taken(Answers(wanted, read), errors)

    def _give_back(self) -> None:
        """What one take has held, also the limit that an option may have set."""
        device = self._models.device
        free_memory(device)
        if device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, device)


@torch.no_grad()
def read_by(judge: Judge, video: Tensor, device: torch.device) -> Shown:
    """What it reads from a video (3, frames, side, side) on the CPU."""
    return judge(video.unsqueeze(0).to(device)).groups()[0]  # type: ignore[no-any-return]  # of a Reading
