"""Measures rows: what the judge reads from true clips, from round trips and from generated videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import torch

from wan22.variants import VARIANTS
from wan22_bench.quality.examples import held_out_clips
from wan22_bench.quality.goals import ROWS, VAES
from wan22_bench.quality.models import NotMeasured
from wan22_bench.quality.pictures import psnr
from wan22_bench.quality.round_trips import round_trips
from wan22_bench.quality.sheet import Shot
from wan22_bench.quality.shooting import Shooting, Taken
from wan22_bench.quality.takes import OPTIONS, TAKES, VARIANTS_TAKES
from wan22_bench.report import Figures, Row
from wan22_testing.shapes.judge import Judge

BASE = "t2v"
"""The take that options are compared with."""


class Measurement:
    """One run; each take's videos are made once."""

    def __init__(self, shooting: Shooting, clips: int) -> None:
        self._shooting = shooting
        self._clips = clips
        self._taken: dict[str, Taken | NotMeasured] = {}

    def rows(self, names: Sequence[str], processes: int = 1) -> Iterator[Row]:
        """The rows of these names, with their figures or the reason why there are none."""
        takes = list(dict.fromkeys(take for name in names for take in _takes(name)))
        self._taken = dict(zip(takes, self._shooting.takes(takes, processes), strict=True))
        for name in names:
            try:
                values = self._values(name)
            except NotMeasured as reason:
                yield from (replace(row, what=f"{row.what}; not measured: {reason}") for row in ROWS[name])
                continue
            peer = self._take(BASE).answers.share if name in OPTIONS else None
            yield from (replace(row, value=value, peer=peer) for row, value in zip(ROWS[name], values, strict=True))

    def figures(self) -> list[Figures]:
        """The shares by number of objects, and how often an option has changed what is read; once there are rows."""
        rows = [self._figures(name, taken) for name, taken in self._taken.items() if isinstance(taken, Taken)]
        columns = ("row", "steps", "side", "prompts", "right", "one object", "two objects", f"read as {BASE}'s")
        title = "Shares of prompts read back right, by number of objects, and of videos read as without the option"
        return [Figures(title=title, columns=columns, rows=rows)] if rows else []

    def shots(self) -> dict[str, Sequence[Shot]]:
        """The first videos of each variant and of turbo, once there are rows."""
        return {
            name: taken.shots
            for name, taken in self._taken.items()
            if name in VARIANTS_TAKES and isinstance(taken, Taken)
        }

    def _figures(self, name: str, taken: Taken) -> list[str | float]:
        answers, take, sampling = taken.answers, TAKES[name], self._shooting.sampling
        variant = VARIANTS[take.variant]
        how = (sampling.steps_of(variant, turbo=take.turbo), sampling.side_of(variant), len(answers.read))
        shares = [answers.share, answers.share_with(1), answers.share_with(2)]
        same = answers.same_as(self._take(BASE).answers) if name in OPTIONS else None
        return [name, *how, *("" if share is None else share for share in (*shares, same))]

    def _take(self, name: str) -> Taken:
        taken = self._taken[name]
        if isinstance(taken, NotMeasured):
            raise taken
        return taken

    def _values(self, name: str) -> list[float]:
        if name == "judge":
            return [self._of_true_clips()]
        if name in VAES:
            return self._of_round_trips(name)
        if name == "chance":
            chance = self._take(BASE).answers.chance
            if chance is None:
                raise NotMeasured("one prompt has no other")
            return [chance]
        taken = self._take(name)
        return [*([psnr(taken.first_frames)] if taken.first_frames else []), taken.answers.share]

    @cached_property
    def _judge(self) -> Judge:
        return self._shooting.models.judge()

    def _side(self, name: str) -> int:
        return self._shooting.sampling.side_of(VARIANTS[VAES[name]])

    def _of_true_clips(self) -> float:
        right = list[bool]()
        for scenes, clips in held_out_clips(self._clips, self._side("vae21")):
            right += self._judge.right(clips.to(self._shooting.models.device), scenes)
            self._shooting.tell("judge", len(right), self._clips, sum(right))
        return sum(right) / len(right)

    def _of_round_trips(self, name: str) -> list[float]:
        models, errors, right = self._shooting.models, list[float](), list[bool]()
        judge, vae = self._judge, models.vae(name, VAES[name])
        for scenes, clips in held_out_clips(self._clips, self._side(name)):
            backs = list(round_trips(vae, clips, models.device))
            errors += [error for _, error in backs]
            right += judge.right(torch.stack([back for back, _ in backs]).to(models.device), scenes)
            self._shooting.tell(name, len(right), self._clips, sum(right))
        return [psnr(errors), sum(right) / len(right)]


def _takes(name: str) -> list[str]:
    """Whose videos a row needs."""
    if name == "chance":
        return [BASE]
    if name in OPTIONS and TAKES[name].absent is None:
        return [BASE, name]
    return [name] if name in TAKES else []
