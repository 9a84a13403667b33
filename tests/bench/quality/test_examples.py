from __future__ import annotations

import torch

from wan22_bench.quality.examples import held_out_clips, held_out_prompts
from wan22_testing.shapes.world import FRAMES


def test_the_prompts_are_always_the_same_and_fewer_of_them_are_the_first() -> None:
    assert held_out_prompts(40)[:8] == held_out_prompts(8)


def test_half_of_the_prompts_have_one_object_and_half_have_two() -> None:
    examples = held_out_prompts(200)
    assert [example.objects for example in examples] == [1, 2] * 100
    pairs = [len(example.scene.groups) for example in examples if example.objects == 2]
    assert 60 < pairs.count(2) < 90  # two that differ, more often than two alike
    assert len({(example.scene, example.prompt, example.seed) for example in examples}) == 200


def test_a_prompt_says_the_colours_of_its_scene() -> None:
    for example in held_out_prompts(50):
        assert all(group.colour in example.prompt.lower() for group in example.scene.groups)


def test_a_true_clip_is_always_the_same() -> None:
    example = held_out_prompts(1)[0]
    clip = example.true_clip(64)
    assert clip.shape == (3, FRAMES, 64, 64)
    assert -1 <= clip.min() < clip.max() <= 1
    assert torch.equal(example.true_clip(64), clip)


def test_as_many_clips_come_as_were_asked_for_and_each_time_the_same() -> None:
    found, again = list(held_out_clips(11, 32)), list(held_out_clips(11, 32))
    assert sum(len(scenes) for scenes, _ in found) == sum(len(clips) for _, clips in found) == 11
    for (scenes, clips), (same_scenes, same_clips) in zip(found, again, strict=True):
        assert scenes == same_scenes
        assert torch.equal(clips, same_clips)
