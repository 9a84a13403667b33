from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wan22_bench.quality.examples import held_out_prompts
from wan22_bench.quality.models import Models, NotMeasured
from wan22_bench.quality.pictures import as_levels
from wan22_bench.quality.studio import Sampling, Studio
from wan22_bench.quality.takes import I2V, T2V
from wan22_inference.engine.model import Model
from wan22_inference.engine.options import EngineOptions

EXAMPLE, OTHER = held_out_prompts(2)
SMALL = Sampling(steps=2, side=64)


@pytest.fixture(scope="module")
def model(models_folder: Path) -> Model:
    return Models(models_folder, torch.device("cpu")).model(T2V, EngineOptions())


def test_a_video_is_its_examples_alone(model: Model) -> None:
    video = Studio(model=model, sampling=SMALL).video(EXAMPLE)
    assert video.shape == (3, 17, 64, 64)
    assert torch.equal(Studio(model=model, sampling=SMALL).video(EXAMPLE), video)
    assert not torch.equal(Studio(model=model, sampling=SMALL).video(OTHER), video)


def test_sampling_takes_the_place_of_the_defaults(model: Model) -> None:
    assert Sampling().side_of(model.variant) == model.variant.width
    assert Sampling().steps_of(model.variant, turbo=False) == model.variant.num_inference_steps
    assert SMALL.steps_of(model.variant, turbo=False) == 2
    assert SMALL.steps_of(model.variant, turbo=True) == 4
    video = Studio(model=model, sampling=SMALL).video(EXAMPLE)
    for other in (Sampling(steps=3, side=64), Sampling(steps=2, guidance=1.0, side=64)):
        assert not torch.equal(Studio(model=model, sampling=other).video(EXAMPLE), video)


def test_a_resumed_video_has_the_same_bits(model: Model) -> None:
    whole, resumed = (
        Studio(model=model, sampling=Sampling(steps=3, side=64), resumed=resumed).video(EXAMPLE)
        for resumed in (False, True)
    )
    assert torch.equal(whole, resumed)


def test_a_single_step_cannot_be_resumed(model: Model) -> None:
    with pytest.raises(NotMeasured, match="one step has no half"):
        Studio(model=model, sampling=Sampling(steps=1, side=64), resumed=True).video(EXAMPLE)


def test_turbo_adds_its_adapters(model: Model, models_folder: Path) -> None:
    turbo = Models(models_folder, model.device).turbo(model)
    sampling = Sampling(side=64, steps=4, guidance=1.0)  # what turbo has anyway
    videos = [Studio(model=model, sampling=sampling, turbo=each).video(EXAMPLE) for each in (None, turbo)]
    assert not torch.equal(*videos)


def test_the_first_frame_is_given_to_the_model(models_folder: Path) -> None:
    studio = Studio(model=Models(models_folder, torch.device("cpu")).model(I2V, EngineOptions()), sampling=SMALL)
    given = [as_levels(example.true_clip(64)[:, 0]) for example in (EXAMPLE, OTHER)]
    first, second = (studio.video(EXAMPLE, frame) for frame in given)
    assert not torch.equal(first, second)
