from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional

from wan22_testing.shapes.judge import Judge, Reading, truth
from wan22_testing.shapes.world import COLOURS, MAX_OBJECTS, MOTIONS, SHAPES, Group, Scene, render

SCENES = (
    Scene((Group(2, "green", "ring", "up"),), "grey"),
    Scene((Group(1, "red", "square", "turns"), Group(1, "white", "triangle", "left")), "dark"),
)


def certain(scenes: tuple[Scene, ...]) -> Reading:
    """The reading of one who knows."""
    number, shape, motion = truth(scenes, torch.device("cpu")).clamp(min=0).unbind(1)
    classes = (MAX_OBJECTS + 1, len(SHAPES), len(MOTIONS))
    logits = [
        20.0 * functional.one_hot(table, count) for table, count in zip((number, shape, motion), classes, strict=True)
    ]
    return Reading(*logits)


def test_a_reading_says_which_groups_are_there() -> None:
    assert certain(SCENES).groups() == [frozenset(scene.groups) for scene in SCENES]


def test_who_knows_loses_nothing_and_who_is_wrong_does() -> None:
    assert certain(SCENES).loss(truth(SCENES, torch.device("cpu"))) < 1e-6
    assert certain(SCENES).loss(truth(SCENES[::-1], torch.device("cpu"))) > 1


def test_what_is_not_there_has_no_shape_and_no_motion() -> None:
    table = truth(SCENES, torch.device("cpu")).transpose(0, 1)
    assert table.shape == (3, len(SCENES), len(COLOURS))
    assert (table[1:] >= 0).sum() == 2 * sum(len(scene.groups) for scene in SCENES)
    assert (table[0] > 0).equal(table[1] >= 0)


def test_a_judge_reads_videos_of_any_size_and_is_the_same_once_stored(tmp_path: Path) -> None:
    torch.manual_seed(1)
    judge = Judge()
    judge.load_state_dict({name: value.bfloat16().float() for name, value in judge.state_dict().items()})
    judge.save(tmp_path / "judge.safetensors")
    stored = Judge.load(tmp_path / "judge.safetensors")
    for size in (64, 96):
        clips = render(SCENES, size, torch.Generator().manual_seed(1))
        made, again = judge(clips), stored(clips)
        assert made.motion.shape == (len(SCENES), len(COLOURS), len(MOTIONS))
        assert made.motion.equal(again.motion)
    assert (tmp_path / "judge.safetensors").stat().st_size < 1_100_000
