"""Out of memory: each phase is tried again with more economy, the worker stays healthy, and the recipe knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wan22.economy import EMPTY, FEED_FORWARD_CHUNKS, TILES, Economy
from wan22.errors import Reason, ResourceExhausted
from wan22.memory_model import predict
from wan22.mp4_boxes import read_recipe
from wan22.parameters import Parameters
from wan22.recipe import Recipe
from wan22.variants import VARIANTS
from wan22_inference.engine.generate import Run, generate
from wan22_inference.engine.model import Model
from wan22_inference.engine.model_load import load_model
from wan22_inference.engine.options import EngineOptions, TextEncoderPlace
from wan22_inference.engine.progress import Progress, Stage
from wan22_inference.engine.transformer_block import FeedForward
from wan22_testing.model_paths import model_paths
from wan22_testing.tiny_models import shared_folder

from .starts import Starts, starts

Make = Callable[..., Parameters]
VARIANT = "t2v-a14b-tiny"
RECIPE = Recipe(VARIANT, "models/m/versions/sha256:00", {}, {})


def load(variant: str = VARIANT, **options: Any) -> Model:
    paths = model_paths(shared_folder(variant))
    return load_model(VARIANTS[variant], paths, torch.device("cpu"), lambda _: None, EngineOptions(**options))


def run(model: Model, parameters: Parameters, path: Path, **surroundings: Any) -> tuple[Economy, list[Progress], bytes]:
    heard: list[Progress] = []
    around = Run(report=heard.append, should_stop=lambda: False, **surroundings)
    economy = generate(model, parameters, {}, path, around, RECIPE)
    assert read_recipe(path).economy == economy.entries()
    return economy, heard, path.read_bytes()


@contextmanager
def memory_for(modules: list[nn.Module], largest: int) -> Iterator[None]:
    """A device on which each of the modules can take no larger input than this."""

    def refuse(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0]
        if isinstance(x, Tensor) and x.numel() > largest:
            raise torch.OutOfMemoryError(f"{x.numel()} numbers are more than {largest}")

    hooks = [module.register_forward_pre_hook(refuse) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def linear_layers(model: Model) -> list[nn.Module]:
    """Those of the feed-forwards that see the wide side."""
    found = [module for transformer in model.transformers for module in transformer.modules()]
    return [module.linear_out for module in found if isinstance(module, FeedForward)]


def test_the_feed_forward_is_cut_until_it_fits(
    parameters: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wan22.memory_model.FEED_FORWARD_CHUNKS", (24, 6))  # a tiny video has 48 tokens
    model, chosen = load(), parameters(VARIANT, num_inference_steps=2)
    plain = run(model, chosen, tmp_path / "plain.mp4")
    assert plain[0] == EMPTY
    with memory_for(linear_layers(model), largest=10 * 96):
        economy, heard, video = run(model, chosen, tmp_path / "cut.mp4")
    assert economy == Economy(feed_forward_chunk=6)
    told = [progress.economy for progress in heard if progress.economy]
    assert told == [Economy(feed_forward_chunk=24), Economy(feed_forward_chunk=6)]
    assert {progress.stage for progress in heard if progress.economy} == {Stage.DENOISING}
    again = run(model, chosen, tmp_path / "again.mp4", economy=economy)
    assert again[2] == video  # with the same economy from the start, the same bits
    assert [progress.economy for progress in again[1] if progress.economy] == []
    assert run(model, chosen, tmp_path / "after.mp4")[2] == plain[2]  # and without it none of it is left


@contextmanager
def no_room_for_a_start(model: Model) -> Iterator[Starts]:
    """A device that has no room for the result of a first block's self-attention once that block has ended."""
    with starts(model.transformers) as watched:

        def refuse(*_: object) -> None:
            if watched.now_alive:
                raise torch.OutOfMemoryError("a tensor too many")

        hooks = [transformer.blocks[0].register_forward_hook(refuse) for transformer in model.transformers]
        try:
            yield watched
        finally:
            for hook in hooks:
                hook.remove()


def test_what_forwards_share_is_given_up_before_anything_that_changes_bits(parameters: Make, tmp_path: Path) -> None:
    model, chosen = load(), parameters(VARIANT, num_inference_steps=2)
    with starts(model.transformers) as watched:
        plain = run(model, chosen, tmp_path / "plain.mp4")
    assert watched.alive == [1, 0] * 2
    with no_room_for_a_start(model) as watched:
        economy, heard, video = run(model, chosen, tmp_path / "apart.mp4")
    assert watched.alive == [1] + [0] * 4
    assert (economy, [progress.economy for progress in heard if progress.economy], video) == (EMPTY, [], plain[2])
    assert not model.placement.streamed


def test_without_guidance_there_is_nothing_to_give_up(
    parameters: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wan22.memory_model.FEED_FORWARD_CHUNKS", (6,))
    tries = []
    for scale in (1.0, 2.0):
        chosen = parameters(VARIANT, num_inference_steps=1, guidance_scale_high=scale, guidance_scale_low=scale)
        model = load()
        with memory_for(linear_layers(model), largest=10 * 96):
            _, heard, _ = run(model, chosen, tmp_path / "v.mp4")
        tries.append(sum(progress.step == 0 for progress in heard))
    assert tries == [2, 3]


@pytest.mark.parametrize("spare", [0, -1])
def test_forwards_share_their_start_where_twice_its_room_is_left(
    parameters: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    monkeypatch.setattr("wan22_inference.engine.placement.ROOM", 0)  # else blocks are streamed under so low a limit
    chosen, wide = parameters(VARIANT, num_inference_steps=2), load(vram_limit=1 << 40)
    holdings = wide.placement.holdings()
    assert holdings is not None
    needed = predict(wide.variant, chosen, holdings, EMPTY).phases["denoise"]
    start = 48 * wide.variant.dim * holdings.element  # a tiny video has 48 tokens
    model = load(vram_limit=needed + 2 * start + spare)
    assert not model.placement.streamed
    with starts(model.transformers) as watched:
        run(model, chosen, tmp_path / "v.mp4")
    assert watched.alive == ([0] * 4 if spare else [1, 0] * 2)


def test_forwards_of_streamed_blocks_share_nothing(parameters: Make, tmp_path: Path) -> None:
    model = load(vram_limit=1300 << 20)
    assert model.placement.streamed
    with starts(model.transformers) as watched:
        run(model, parameters(VARIANT, num_inference_steps=2), tmp_path / "v.mp4")
    assert watched.alive == [0] * 4


def test_decoding_in_tiles_repeats_no_denoising(parameters: Make, tmp_path: Path) -> None:
    model, chosen = load(), parameters(VARIANT, width=512, height=512, num_frames=1, num_inference_steps=1)
    head, seen = model.vae.decoder.head, []
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].numel()))
    run(model, chosen, tmp_path / "whole.mp4")
    hook.remove()
    with memory_for([head], largest=max(seen) // 2):
        economy, heard, video = run(model, chosen, tmp_path / "tiled.mp4")
    assert economy == Economy(decode_tile=32)
    assert sum(progress.step == 1 for progress in heard) == 1
    assert run(model, chosen, tmp_path / "again.mp4", economy=economy)[2] == video


def test_past_the_last_step_the_generation_fails_with_figures_and_the_worker_goes_on(
    parameters: Make, tmp_path: Path
) -> None:
    model, chosen = load(vram_limit=1 << 40), parameters(VARIANT, num_inference_steps=1)
    with memory_for(linear_layers(model), largest=0), pytest.raises(ResourceExhausted) as caught:
        run(model, chosen, tmp_path / "v.mp4")
    assert caught.value.reason is Reason.OUT_OF_MEMORY
    assert "64 x 96 x 5 frames" in caught.value.message
    assert "MiB of 1048576 MiB" in caught.value.message
    assert model.placement.streamed  # the last step that was tried
    plain = run(load(), chosen, tmp_path / "plain.mp4")
    assert run(model, chosen, tmp_path / "after.mp4")[2] == plain[2]


@pytest.mark.parametrize("variant", ["t2v-a14b-tiny", "ti2v-5b-tiny"])
def test_blocks_in_host_memory_change_no_bits(parameters: Make, tmp_path: Path, variant: str) -> None:
    chosen = parameters(variant, num_inference_steps=3)
    expected = run(load(variant), chosen, tmp_path / "plain.mp4")[2]
    limited = load(variant, vram_limit=1300 << 20)
    assert limited.placement.streamed
    economy, _, video = run(limited, chosen, tmp_path / "limited.mp4")
    assert (economy, video) == (EMPTY, expected)


@pytest.mark.parametrize("place", TextEncoderPlace)
def test_the_encoders_place_is_counted(place: TextEncoderPlace) -> None:
    holdings = load(text_encoder=place, vram_limit=1 << 40).placement.holdings()
    assert holdings is not None
    assert holdings.text_encoder_stays == (place is TextEncoderPlace.DEVICE)
    assert (holdings.text_encoder == 0) == (place is TextEncoderPlace.CPU)
    assert holdings.block > 0
    assert holdings.expert > 0


def test_a_limit_makes_a_generation_economical_before_it_runs(parameters: Make, tmp_path: Path) -> None:
    chosen = parameters(VARIANT, width=512, height=512, num_frames=1, num_inference_steps=1)
    economy, heard, _ = run(load(vram_limit=1500 << 20), chosen, tmp_path / "v.mp4")
    assert economy.decode_tile in TILES
    assert heard[0].economy is not None
    assert economy.feed_forward_chunk in (None, *FEED_FORWARD_CHUNKS)
