"""Reads from a video what it shows: of each colour how many objects, of which shape, and how they move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from wan22_testing.shapes.world import COLOURS, MAX_OBJECTS, MOTIONS, SHAPES, Group, Scene

SIDE = 64
"""Pixels a side that the network sees; others are scaled to it."""
_AT_A_TIME = 64
"""Videos, each seen seven times: 0.2 GB of a layer's features each."""


@dataclass(frozen=True)
class Reading:
    """Logits of the number, shape and motion of each colour's objects: (videos, colours, classes)."""

    number: Tensor
    shape: Tensor
    motion: Tensor

    def groups(self) -> list[frozenset[Group]]:
        """What each video shows, at its likeliest."""
        best = [logits.argmax(-1).tolist() for logits in (self.number, self.shape, self.motion)]
        return [
            frozenset(
                Group(number, colour, SHAPES[shape], MOTIONS[motion])
                for colour, number, shape, motion in zip(COLOURS, *video, strict=True)
                if number
            )
            for video in zip(*best, strict=True)
        ]

    def loss(self, truth: Tensor) -> Tensor:
        """Cross-entropy to the truth of scenes; shape and motion count where there is something."""
        number, shape, motion = truth.unbind(1)

        def entropy(logits: Tensor, wanted: Tensor) -> Tensor:
            return functional.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=-1)

        return entropy(self.number, number) + entropy(self.shape, shape) + entropy(self.motion, motion)


def truth(scenes: Sequence[Scene], device: torch.device) -> Tensor:
    """(scenes, 3, colours): number, shape and motion, -1 for those of a colour that is not there."""
    table = torch.full((len(scenes), 3, len(COLOURS)), -1)
    table[:, 0] = 0
    for row, scene in enumerate(scenes):
        for group in scene.groups:
            values = (group.number, SHAPES.index(group.shape), MOTIONS.index(group.motion))
            table[row, :, list(COLOURS).index(group.colour)] = torch.tensor(values)
    return table.to(device)


class Judge(nn.Module):
    """First tells the colours apart, pixel by pixel, then looks at each colour alone, all with the same eyes."""

    def __init__(self) -> None:
        super().__init__()
        self.colours = nn.Sequential(nn.Conv3d(3, 32, 1), nn.SiLU(), nn.Conv3d(32, len(COLOURS) + 1, 1))
        widths = (1, 24, 48, 96, 128)
        self.eyes = nn.Sequential(
            *(
                layer
                for level, (inputs, outputs) in enumerate(pairwise(widths))
                for layer in (
                    nn.Conv3d(inputs, outputs, 3, stride=(2 if level else 1, 2, 2), padding=1),
                    nn.GroupNorm(8, outputs),
                    nn.SiLU(),
                )
            )
        )
        self.heads = nn.Sequential(nn.Linear(2 * widths[-1], 128), nn.SiLU())
        self.number = nn.Linear(128, MAX_OBJECTS + 1)
        self.shape = nn.Linear(128, len(SHAPES))
        self.motion = nn.Linear(128, len(MOTIONS))

    def forward(self, videos: Tensor) -> Reading:
        """Reads videos (videos, 3, frames, height, width) in [-1, 1]."""
        count, _, frames, *sides = videos.shape
        if sides != [SIDE, SIDE]:
            each = videos.transpose(1, 2).flatten(0, 1)
            scaled = functional.interpolate(each, (SIDE, SIDE), mode="bilinear", antialias=True)
            videos = scaled.view(count, frames, -1, SIDE, SIDE).transpose(1, 2)
        masks = self.colours(videos).softmax(1)[:, :-1].flatten(0, 1).unsqueeze(1)
        seen = self.eyes(masks)
        features = self.heads(torch.cat([seen.mean((2, 3, 4)), seen.amax((2, 3, 4))], 1))
        features = features.view(count, len(COLOURS), -1)
        return Reading(self.number(features), self.shape(features), self.motion(features))

    @torch.no_grad()
    def right(self, videos: Tensor, scenes: Sequence[Scene]) -> list[bool]:
        """Whether each video shows just what its scene says, all attributes at once."""
        read = [shown for part in torch.split(videos, _AT_A_TIME) for shown in self(part).groups()]
        return [shown == frozenset(scene.groups) for shown, scene in zip(read, scenes, strict=True)]

    def save(self, file: Path) -> None:
        """Writes the weights as bf16."""
        save_file(
            {name: value.to("cpu", torch.bfloat16).contiguous() for name, value in self.state_dict().items()}, file
        )

    @classmethod
    def load(cls, file: Path) -> Self:
        """Reads what `save` has written, to compute in float32."""
        judge = cls()
        judge.load_state_dict({name: value.float() for name, value in load_file(file).items()})
        return judge.eval()
