"""What the tiny models are trained on: scenes of one to three coloured shapes, described, and rendered as clips."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

COLOURS = {
    "red": (0.90, 0.12, 0.12),
    "orange": (1.00, 0.52, 0.05),
    "yellow": (0.98, 0.93, 0.20),
    "green": (0.15, 0.75, 0.25),
    "blue": (0.20, 0.40, 0.98),
    "purple": (0.68, 0.25, 0.85),
    "white": (0.97, 0.97, 0.97),
}
SHAPES = ("circle", "ring", "square", "triangle")
MOTIONS = ("left", "right", "up", "down", "grows", "shrinks", "turns", "still")
BACKGROUNDS = {"dark": (0.08, 0.08, 0.10), "grey": (0.38, 0.38, 0.40), "brown": (0.32, 0.22, 0.14)}
MAX_OBJECTS = 3
FRAMES = 17
FPS = 8
_ROUND = ("circle", "ring")
"""Nobody sees these turn."""
_NUMBERS = ((1,), (1, 1), (2,), (2, 1), (3,))
_SHARES = (0.3, 0.4, 0.12, 0.11, 0.07)
"""Which numbers of objects the groups of a scene have, and how often."""
_CANDIDATES = 48
_DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
_SIZES = {"grows": (0.55, 1.35), "shrinks": (1.35, 0.55)}
"""Radius at the start and at the end, over the group's."""
_HOMES = {1: ((0.5, 0.5),), 2: ((0.3, 0.3), (0.7, 0.7)), 3: ((0.25, 0.28), (0.75, 0.28), (0.5, 0.74))}
"""Where the middles of objects' paths are drawn to, by how many there are and in the order of their colours."""
_REACH = (0.2, 1.0)
"""How far around home places are drawn, the first and the last of them, over the frame's side."""
_APART = 0.03
"""What is between two objects at least, where any of the drawn places has so much."""


@dataclass(frozen=True)
class Group:
    """Objects that look and move alike."""

    number: int
    colour: str
    shape: str
    motion: str


@dataclass(frozen=True)
class Scene:
    """One or two groups of different colours, three objects at most, over a background."""

    groups: tuple[Group, ...]
    background: str

    @property
    def objects(self) -> tuple[Group, ...]:
        """The group of each object."""
        return tuple(group for group in self.groups for _ in range(group.number))


def random_scene(rng: random.Random, *, numbers: tuple[int, ...] | None = None) -> Scene:
    """A scene; `numbers` says how many objects each of its groups has, where that is not to be drawn."""
    numbers = numbers or rng.choices(_NUMBERS, _SHARES)[0]
    groups = []
    for number, colour in zip(numbers, rng.sample(list(COLOURS), len(numbers)), strict=True):
        shape = rng.choice(SHAPES)
        motion = rng.choice([motion for motion in MOTIONS if motion != "turns" or shape not in _ROUND])
        groups.append(Group(number, colour, shape, motion))
    return Scene(tuple(groups), rng.choice(list(BACKGROUNDS)))


def render(scenes: Sequence[Scene], size: int, generator: torch.Generator, frames: int = FRAMES) -> Tensor:
    """Clips (scenes, 3, frames, size, size) in [-1, 1] on the generator's device; places and sizes are drawn."""
    paths = _Paths(scenes, generator, frames)
    device = generator.device
    line = (torch.arange(size, device=device) + 0.5) / size
    y, x = torch.meshgrid(line, line, indexing="ij")
    base = torch.tensor([BACKGROUNDS[scene.background] for scene in scenes], device=device)
    light = 0.1 * (torch.rand(len(scenes), 2, generator=generator, device=device) - 0.5)
    shade = light[:, :1, None] + light[:, 1:, None] * (y - 0.5)[None]  # brighter, and so from top to bottom
    clip = (base[:, :, None, None] + shade[:, None]).unsqueeze(2).expand(-1, -1, frames, -1, -1).clone()
    for slot in range(MAX_OBJECTS):
        centre = paths.centres[:, slot, :, :, None, None]
        across, down = x - centre[:, :, 0], y - centre[:, :, 1]
        turn = paths.angles[:, slot, :, None, None]
        across, down = turn.cos() * across + turn.sin() * down, turn.cos() * down - turn.sin() * across
        radius = paths.radii[:, slot, :, None, None]
        distance = _distance(across, down, radius, paths.shapes[:, slot])
        covered = (0.5 - distance * size).clamp(0, 1) * (radius > 0)
        clip = torch.lerp(clip, paths.colours[:, slot, :, None, None, None], covered[:, None])
    return clip * 2 - 1


def _distance(x: Tensor, y: Tensor, radius: Tensor, shape: Tensor) -> Tensor:
    """From each pixel to the shape's edge, negative inside; x, y (scenes, frames, size, size)."""
    length = (x * x + y * y).sqrt()
    slope = math.sqrt(3) / 2
    each = (
        length - radius,
        (length - 0.72 * radius).abs() - 0.28 * radius,
        torch.maximum(x.abs(), y.abs()) - 0.85 * radius,
        torch.maximum(torch.maximum(slope * x - 0.5 * y, -slope * x - 0.5 * y), y) - 0.58 * radius,
    )
    return torch.stack(each).gather(0, shape[None, :, None, None, None].expand(1, *x.shape))[0]


class _Paths:
    """Where the objects of scenes are in each frame; tensors of (scenes, MAX_OBJECTS, frames, ...)."""

    def __init__(self, scenes: Sequence[Scene], generator: torch.Generator, frames: int) -> None:
        device = generator.device
        absent = Group(0, "white", "circle", "still")
        slots = [[*scene.objects, *[absent] * MAX_OBJECTS][:MAX_OBJECTS] for scene in scenes]

        def table(value: object) -> Tensor:
            return torch.tensor(value, device=device)

        def draw(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device)

        count = len(scenes)
        self.shapes = table([[SHAPES.index(one.shape) for one in row] for row in slots])
        self.colours = table([[COLOURS[one.colour] for one in row] for row in slots])
        present = table([[float(one.number > 0) for one in row] for row in slots])
        time = torch.linspace(0, 1, frames, device=device)
        ends = table([[_SIZES.get(one.motion, (1.0, 1.0)) for one in row] for row in slots])
        size = (0.115 + 0.05 * draw(count, 1)) * present
        self.radii = size[..., None] * torch.lerp(ends[..., :1], ends[..., 1:], time)
        turns = table([[float(one.motion == "turns") for one in row] for row in slots])
        way = 1 - 2 * (draw(count, MAX_OBJECTS) < 0.5).float()
        self.angles = (turns * way * math.pi * (0.6 + 0.4 * draw(count, MAX_OBJECTS)))[..., None] * time
        direction = table([[_DIRECTIONS.get(one.motion, (0.0, 0.0)) for one in row] for row in slots])
        step = direction * (0.35 + 0.2 * draw(count, MAX_OBJECTS, 1))
        homes = table([_homes(row) for row in slots])
        self.centres = self._places(step, time, draw(_CANDIDATES, count, MAX_OBJECTS, 2), present, homes)

    def _places(self, step: Tensor, time: Tensor, drawn: Tensor, present: Tensor, homes: Tensor) -> Tensor:
        """Of places that are drawn ever farther around home the first that are far enough apart.

        All keep the objects inside the frame. So a caption says roughly where things are, and leaves a small network
        less to learn.
        """
        margin = self.radii.amax(-1)[..., None] + 0.02
        low, high = margin - step.clamp(max=0), 1 - margin - step.clamp(min=0)
        reach = torch.linspace(*_REACH, len(drawn), device=drawn.device)[:, None, None, None]
        places = (homes - step / 2 + reach * (drawn - 0.5)).clamp(low, high)
        centres = places[..., None] + step[..., None] * time  # (candidates, scenes, slots, 2, F)
        centres = centres.transpose(-1, -2)
        apart = torch.full(drawn.shape[:2], math.inf, device=drawn.device)
        for one, other in ((0, 1), (0, 2), (1, 2)):
            between = (centres[:, :, one] - centres[:, :, other]).norm(dim=-1)
            gap = (between - 1.15 * (self.radii[:, one] + self.radii[:, other])).amin(-1)  # corners reach farther
            apart = apart.minimum(torch.where((present[:, one] * present[:, other]) > 0, gap, math.inf))
        later = 1e-4 * torch.arange(len(drawn), device=drawn.device)[:, None]
        best = (apart.clamp(max=_APART) - later).argmax(0)
        return centres[best, torch.arange(len(best), device=best.device)]


def _homes(slots: Sequence[Group]) -> list[tuple[float, float]]:
    """Of each slot; where there is no object, any."""
    present = [slot for slot, group in enumerate(slots) if group.number]
    by_colour = sorted(present, key=lambda slot: list(COLOURS).index(slots[slot].colour))
    homes = [(0.5, 0.5)] * len(slots)
    for slot, home in zip(by_colour, _HOMES[len(present)], strict=True):
        homes[slot] = home
    return homes
