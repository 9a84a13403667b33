"""The trained weights do what docs/tiny-models.md says, on scenes that no training has seen."""

from __future__ import annotations

import random

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from wan22_testing.shapes.judge import Judge, Reading
from wan22_testing.shapes.world import Group, Scene, random_scene, render
from wan22_testing.trained_parts import JUDGE, VAE_21

COUNT = 48


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    rng = random.Random("held out")
    return [random_scene(rng) for _ in range(COUNT)]


@pytest.fixture(scope="module")
def clips(scenes: list[Scene]) -> Tensor:
    return render(scenes, 64, torch.Generator().manual_seed(2026))


@pytest.fixture(scope="module")
def read(clips: Tensor) -> list[frozenset[Group]]:
    with torch.no_grad():
        reading: Reading = Judge.load(JUDGE)(clips)
    return reading.groups()


def right(read: list[frozenset[Group]], scenes: list[Scene]) -> int:
    return sum(groups == frozenset(scene.groups) for groups, scene in zip(read, scenes, strict=True))


def test_the_judge_reads_true_clips_right(read: list[frozenset[Group]], scenes: list[Scene]) -> None:
    assert right(read, scenes) >= COUNT - 1


def test_the_judge_is_not_pleased_with_the_clip_of_another_prompt(
    read: list[frozenset[Group]], scenes: list[Scene]
) -> None:
    assert right(read, [*scenes[1:], scenes[0]]) <= 1


@torch.no_grad()
def test_the_vae_gives_clips_back_as_the_judge_still_reads_them(clips: Tensor, scenes: list[Scene]) -> None:
    some = 8
    vae = AutoencoderKLWan.from_pretrained(VAE_21, torch_dtype=torch.float32)
    again = vae.decode(vae.encode(clips[:some]).latent_dist.mode()).sample
    noise = (again - clips[:some]).square().mean()
    assert 10 * torch.log10(4 / noise) >= 32  # dB, of a peak of 2
    assert all(Judge.load(JUDGE).right(again, scenes[:some]))
