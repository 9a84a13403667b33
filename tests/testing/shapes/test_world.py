from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from wan22_testing.shapes.world import COLOURS, FRAMES, MAX_OBJECTS, MOTIONS, Group, Scene, random_scene, render

SIZE = 64


def clip_of(*groups: Group, seed: int = 1) -> Tensor:
    """(3, frames, SIZE, SIZE)."""
    return render([Scene(groups, "dark")], SIZE, torch.Generator().manual_seed(seed))[0]


def covered(clip: Tensor, colour: str) -> Tensor:
    """(frames, SIZE, SIZE), true where a pixel is just of the colour."""
    wanted = torch.tensor(COLOURS[colour]).view(3, 1, 1, 1) * 2 - 1
    return (clip - wanted).abs().amax(0) < 0.02


def middle(mask: Tensor) -> tuple[float, float]:
    """x and y of what one frame covers, as shares of the frame."""
    y, x = mask.nonzero(as_tuple=True)
    return x.float().mean().item() / SIZE, y.float().mean().item() / SIZE


@given(seed=st.integers(0, 2**32))
def test_a_scene_has_at_most_three_objects_in_groups_of_different_colours(seed: int) -> None:
    scene = random_scene(random.Random(seed))
    assert 1 <= len(scene.objects) <= MAX_OBJECTS
    assert len({group.colour for group in scene.groups}) == len(scene.groups)


@given(seed=st.integers(0, 2**32))
def test_what_is_round_never_turns(seed: int) -> None:
    scene = random_scene(random.Random(seed))
    assert not any(group.motion == "turns" and group.shape in {"circle", "ring"} for group in scene.groups)


def test_a_clip_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    group = Group(2, "red", "square", "left")
    assert clip_of(group, seed=3).equal(clip_of(group, seed=3))
    assert not clip_of(group, seed=3).equal(clip_of(group, seed=4))


@pytest.mark.parametrize("motion", MOTIONS)
def test_objects_do_what_their_motion_says(motion: str) -> None:
    clip = clip_of(Group(1, "blue", "triangle", motion))
    assert clip.shape == (3, FRAMES, SIZE, SIZE)
    masks = covered(clip, "blue")
    (x0, y0), (x1, y1) = middle(masks[0]), middle(masks[-1])
    across, down, growth = x1 - x0, y1 - y0, masks[-1].sum().item() / masks[0].sum().item()
    sideways, upright = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}.get(motion, (0, 0))
    assert (across * sideways > 0.3) if sideways else abs(across) < 0.02
    assert (down * upright > 0.3) if upright else abs(down) < 0.04
    assert growth > 3 if motion == "grows" else growth < 0.3 if motion == "shrinks" else 0.8 < growth < 1.25
    still = masks[0].equal(masks[FRAMES // 2])
    assert still == (motion == "still")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_more_objects_cover_more(number: int) -> None:
    one, several = (covered(clip_of(Group(count, "red", "square", "still")), "red")[0].sum() for count in (1, number))
    assert several / one == pytest.approx(number, rel=0.15)


def test_two_objects_have_homes_by_their_colours() -> None:
    groups = [Group(1, "green", "ring", "still"), Group(1, "red", "square", "still")]
    for seed in range(8):
        for order in (groups, groups[::-1]):
            clip = clip_of(*order, seed=seed)
            for colour, home in (("red", 0.3), ("green", 0.7)):
                assert middle(covered(clip, colour)[0]) == pytest.approx((home, home), abs=0.13)


@given(seed=st.integers(0, 2**32))
def test_objects_stay_apart_and_within_the_frame(seed: int) -> None:
    clip = clip_of(Group(1, "red", "square", "right"), Group(1, "blue", "circle", "up"), seed=seed)
    counts = [covered(clip, colour).sum((1, 2)) for colour in ("red", "blue")]
    for count in counts:
        assert count.min() > 0.8 * count.max()


@given(seed=st.integers(0, 2**32))
def test_values_stay_within_their_range(seed: int) -> None:
    clip = render([random_scene(random.Random(seed))], 16, torch.Generator().manual_seed(seed))
    assert clip.min() >= -1
    assert clip.max() <= 1
