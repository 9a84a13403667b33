"""A model runs before all of it is loaded."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from wan22.errors import Cancelled, DataLoss, Reason, Unavailable
from wan22.pack.writer import pack_file
from wan22.parameters import Parameters
from wan22.variants import VARIANTS
from wan22_inference.engine import arrivals
from wan22_inference.engine.generate import Run, generate
from wan22_inference.engine.loading.host_lane import HostLane
from wan22_inference.engine.loading.loader import WeightLoader
from wan22_inference.engine.model import Model
from wan22_inference.engine.model_load import ModelLoad, load_model
from wan22_inference.engine.options import EngineOptions
from wan22_inference.engine.progress import Progress, Stage
from wan22_testing.model_paths import model_paths
from wan22_testing.tiny_models import shared_folder

Make = Callable[..., Parameters]
Picture = Callable[..., tuple[str, bytes]]
T2V, I2V = "t2v-a14b-tiny", "i2v-a14b-tiny"
CPU = torch.device("cpu")


class Listener:
    """Hears of a generation's progress; others can wait for what it hears."""

    def __init__(self) -> None:
        self.heard: list[Progress] = []
        self.stepped = threading.Event()

    def __call__(self, progress: Progress) -> None:
        self.heard.append(progress)
        if progress.stage is Stage.DENOISING and progress.step:
            self.stepped.set()


def is_loaded(module: nn.Module) -> bool:
    return not any(parameter.is_meta for parameter in module.parameters())


def opened(variant: str, paths: dict[str, Path] | None = None, **options: Any) -> ModelLoad:
    paths = paths or model_paths(shared_folder(variant))
    return ModelLoad(VARIANTS[variant], paths, CPU, lambda _: None, EngineOptions(**options))


def whole(variant: str) -> Model:
    return load_model(VARIANTS[variant], model_paths(shared_folder(variant)), CPU, lambda _: None)


def test_steps_are_made_before_the_second_expert_and_the_vae_are_loaded_and_the_video_is_the_same(
    parameters: Make, tmp_path: Path
) -> None:
    given, listener = parameters(T2V, num_inference_steps=4), Listener()
    with opened(T2V) as load, ThreadPoolExecutor(1) as pool:
        model = load.begin()
        run = Run(report=listener, should_stop=lambda: False)
        video = pool.submit(generate, model, given, {}, tmp_path / "early.mp4", run)
        assert listener.stepped.wait(60.0)
        assert is_loaded(model.transformers[0])
        assert not is_loaded(model.transformers[1])
        assert not is_loaded(model.vae)
        assert not video.done()
        load.finish()
        video.result(60.0)
        assert is_loaded(model.transformers[1])
        assert is_loaded(model.vae)
    generate(whole(T2V), given, {}, tmp_path / "late.mp4", Run(report=lambda _: None, should_stop=lambda: False))
    assert (tmp_path / "early.mp4").read_bytes() == (tmp_path / "late.mp4").read_bytes()


def test_where_the_vae_encodes_the_image_it_comes_before_the_experts(
    parameters: Make, picture: Picture, tmp_path: Path
) -> None:
    media, png = picture(1)
    given, listener = parameters(I2V, image=media, num_inference_steps=4), Listener()
    with opened(I2V) as load, ThreadPoolExecutor(1) as pool:
        model = load.begin()
        assert is_loaded(model.vae)
        assert not is_loaded(model.transformers[1])
        run = Run(report=listener, should_stop=lambda: False)
        video = pool.submit(generate, model, given, {media: png}, tmp_path / "v.mp4", run)
        assert listener.stepped.wait(60.0)
        load.finish()
        video.result(60.0)


def test_experts_that_are_streamed_are_loaded_before_anything_runs() -> None:
    with opened(T2V, vram_limit=1 << 20) as load:
        model = load.begin()
        assert model.placement.streamed
        assert is_loaded(model.vae)
        load.finish()


def lanes() -> int:
    gc.collect()
    return sum(type(found) is HostLane for found in gc.get_objects())


def test_the_lanes_are_gone_when_all_there_is_to_wait_for_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their memory is the device's: a generation that lacked it tries again once all has arrived."""
    verifying: list[int] = []
    monkeypatch.setattr(WeightLoader, "verify", lambda _: verifying.append(lanes()))
    with opened(T2V) as load:
        load.begin()
        assert lanes() > 0
        load.finish()
    with opened(T2V, vram_limit=1 << 20) as load:
        load.begin()
        assert lanes() == 0
        load.finish()
    assert verifying == [0, 0]


def test_a_generation_that_does_not_fit_beside_loading_waits_for_its_end(
    parameters: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, listener, looks = parameters(T2V, num_inference_steps=4), Listener(), itertools.count()
    monkeypatch.setattr(arrivals, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(WeightLoader, "scratch_bytes", 1 << 40)
    with opened(T2V, vram_limit=1 << 40) as load:
        model = load.begin()
        run = Run(report=listener, should_stop=lambda: next(looks) >= 1000)
        with pytest.raises(Cancelled):  # at a look by which it would long have made steps
            generate(model, given, {}, tmp_path / "v.mp4", run)
        assert [progress.stage for progress in listener.heard] == [Stage.ENCODING_TEXT]
        load.finish()
        generate(model, given, {}, tmp_path / "v.mp4", Run(report=listener, should_stop=lambda: False))
    assert listener.stepped.is_set()
    assert {progress.economy for progress in listener.heard} == {None}


def test_damage_that_shows_late_ends_the_generation_as_the_workers_fault(parameters: Make, tmp_path: Path) -> None:
    paths, listener = model_paths(shared_folder(T2V)), Listener()
    name = "vae/diffusion_pytorch_model.safetensors"
    packed = tmp_path / "vae.pack"
    pack_file(paths.pop(name), packed, lambda _: None)
    content = packed.read_bytes()
    packed.write_bytes(content[:-5000] + bytes([content[-5000] ^ 1]) + content[-4999:])
    paths[f"{name}.pack"] = packed
    with opened(T2V, paths) as load, ThreadPoolExecutor(1) as pool:
        model = load.begin()
        run = Run(report=listener, should_stop=lambda: False)
        video = pool.submit(generate, model, parameters(T2V), {}, tmp_path / "v.mp4", run)
        assert listener.stepped.wait(60.0)
        with pytest.raises(DataLoss, match=r"vae/diffusion_pytorch_model\.safetensors\.pack is damaged: the extent at"):
            load.finish()
        with pytest.raises(Unavailable, match="could not load its model while it ran") as caught:
            video.result(60.0)
    assert caught.value.reason is Reason.WORKER_LOADING
    assert not (tmp_path / "v.mp4").exists()
