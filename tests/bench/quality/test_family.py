"""The trained tiny family shows what prompts say, by the engine as a worker runs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from wan22_bench.quality.examples import Example
from wan22_bench.quality.models import Models
from wan22_bench.quality.pictures import as_levels, as_values, square_error
from wan22_bench.quality.shooting import read_by
from wan22_bench.quality.studio import Studio
from wan22_bench.quality.takes import I2V, T2V, TI2V
from wan22_inference.engine.model import Model
from wan22_inference.engine.options import EngineOptions
from wan22_testing.shapes.judge import Judge
from wan22_testing.shapes.world import COLOURS, Group, Scene
from wan22_testing.trained import whole
from wan22_testing.trained_parts import FOLDER

CPU = torch.device("cpu")
RED_CIRCLE = Example(Scene((Group(1, "red", "circle", "right"),), "dark"), "A red circle moves right", seed=1)
BLUE_SQUARES = Example(Scene((Group(2, "blue", "square", "shrinks"),), "dark"), "two blue squares shrink", seed=2)
BOTH = pytest.mark.parametrize("example", [RED_CIRCLE, BLUE_SQUARES], ids=lambda example: example.prompt)


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    with whole(FOLDER) as folder:
        yield Models(folder, CPU)


@pytest.fixture(scope="module")
def judge(models: Models) -> Judge:
    return models.judge()


@pytest.fixture(scope="module")
def t2v(models: Models) -> Model:
    return models.model(T2V, EngineOptions())


@pytest.fixture(scope="module")
def fp8(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return models.model(T2V, EngineOptions(), tmp_path_factory.mktemp("fp8"))


def shows(judge: Judge, video: Tensor, example: Example) -> bool:
    return read_by(judge, video, CPU) == frozenset(example.scene.groups)


def centre(video: Tensor, frame: int, colour: str) -> float:
    """Where a frame's pixels of a colour are, from 0 at the left to 1 at the right; no judge is asked."""
    wanted = torch.tensor(COLOURS[colour]).view(3, 1, 1) * 2 - 1
    near = ((video[:, frame] - wanted).norm(dim=0) < 0.5).float().sum(0)
    across = (torch.arange(len(near)) + 0.5) / len(near)
    return float((near * across).sum() / near.sum())


def test_a_red_circle_moves_right(t2v: Model, judge: Judge) -> None:
    video = Studio(model=t2v).video(RED_CIRCLE)
    assert shows(judge, video, RED_CIRCLE)
    assert centre(video, -1, "red") - centre(video, 0, "red") > 0.25


@BOTH
def test_float8_shows_the_same(fp8: Model, judge: Judge, example: Example) -> None:
    assert shows(judge, Studio(model=fp8).video(example), example)


@BOTH
def test_a_resumed_video_shows_the_same(t2v: Model, judge: Judge, example: Example) -> None:
    assert shows(judge, Studio(model=t2v, resumed=True).video(example), example)


def test_four_steps_show_it_with_the_adapters_of_turbo(models: Models, t2v: Model, judge: Judge) -> None:
    assert shows(judge, Studio(model=t2v, turbo=models.turbo(t2v)).video(RED_CIRCLE), RED_CIRCLE)


def test_the_5b_shows_it_from_text_alone(models: Models, judge: Judge) -> None:
    video = Studio(model=models.model(TI2V, EngineOptions())).video(RED_CIRCLE)
    assert shows(judge, video, RED_CIRCLE)


def test_a_video_begins_with_the_given_frame(models: Models) -> None:
    model = models.model(I2V, EngineOptions())
    given = as_levels(RED_CIRCLE.true_clip(model.variant.width)[:, 0])
    video = Studio(model=model).video(RED_CIRCLE, given)
    error = square_error(video[:, 0], as_values([given])[:, 0])
    assert 10 * torch.log10(torch.tensor(4 / error)) >= 30  # dB, of a peak of 2
    assert centre(video, -1, "red") - centre(video, 0, "red") > 0.25


def test_the_family_is_small_and_whole() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert {path.relative_to(FOLDER).parts[0] for path in files} == {
        *("judge.safetensors", "text_encoder", "vae21", "vae22", T2V, I2V, TI2V, "turbo")
    }


def test_no_folder_of_a_training_is_told() -> None:
    assert [path for path in FOLDER.rglob("*.json") if "_name_or_path" in path.read_text()] == []


def test_each_file_of_weights_is_bfloat16() -> None:
    for path in sorted(FOLDER.rglob("*.safetensors")):
        with safe_open(path, "pt") as file:
            types = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118  # no mapping
        assert types == {"BF16"}, path
