"""A model imported in float8 is loaded, and makes nearly what the same model makes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from wan22.cache import Cache
from wan22.model_client import ModelClient
from wan22.model_packing import Packer
from wan22.parameters import Parameters
from wan22.variants import VARIANTS
from wan22_inference.engine.checkpoint_names import checkpoint_names
from wan22_inference.engine.components import empty_transformer, fill_transformer
from wan22_inference.engine.generate import Run, generate
from wan22_inference.engine.loading.loader import WeightLoader
from wan22_inference.engine.model import Model
from wan22_inference.engine.model_files import ModelFiles
from wan22_inference.engine.model_load import load_model
from wan22_inference.engine.rows8 import FP8
from wan22_inference.engine.scaled_linear import ScaledLinear
from wan22_inference.engine.transformer import Transformer
from wan22_inference.engine.transformer_config import read_transformer_config
from wan22_testing.forwards import our_state
from wan22_testing.tiny_models import shared_folder

from . import official_model
from .conftest import Registry

VARIANT = "ti2v-5b-tiny"


@pytest.mark.parametrize("official", [False, True], ids=["diffusers", "official"])
async def test_a_model_imported_in_float8_runs_and_its_text_encoder_is_close(
    registry: Registry,
    tiny_model: Callable[[str], Model],
    parameters: Callable[..., Parameters],
    tmp_path: Path,
    official: bool,
) -> None:
    folder = official_model.write(VARIANT, tmp_path / "official") if official else shared_folder(VARIANT)
    async with ModelClient(registry.address) as client:
        packer = Packer(tmp_path / "packing", VARIANT, "fp8")
        version = await client.push_folder(folder, model="m", variant=VARIANT, tags=["fp8"], packer=packer)
        cached = await Cache(tmp_path / "cache").pull(version, client)
    model = load_model(VARIANTS[VARIANT], cached.files, torch.device("cpu"), lambda _: None)
    whole = tiny_model(VARIANT)
    assert all(block.fp8 for block in model.transformers[0].blocks)
    assert sum(isinstance(layer, ScaledLinear) for layer in model.text_encoder.module.modules()) == 14
    with torch.inference_mode():
        ours, theirs = (m.text_encoder.module(torch.arange(4, 20)[None], 16) for m in (model, whole))
    error = float((ours - theirs).norm() / theirs.norm())
    assert (
        0 < error < 0.08
    )  # a value of 3 bits of mantissa is off by 0.026 on average, and errors add up over two layers
    path = tmp_path / "v.mp4"
    chosen = parameters(VARIANT, num_inference_steps=2)
    generate(model, chosen, {}, path, Run(report=lambda _: None, should_stop=lambda: False))
    cached.close()
    assert path.stat().st_size > 1_000


@pytest.mark.parametrize("exact_blocks", [0, 1])
def test_blocks_before_the_first_with_scales_are_as_they_were(exact_blocks: int, tmp_path: Path) -> None:
    folder = shared_folder(VARIANT)
    config, weights = folder / "transformer" / "config.json", tmp_path / "w.safetensors"
    plain = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    with torch.device("meta"):
        read = read_transformer_config(json.loads(config.read_bytes()), "transformer")
        quantised = Transformer(read, torch.float32, fp8=True, exact_blocks=exact_blocks)
    state = our_state(quantised, plain)
    save_file({checkpoint_names(name)[0]: tensor for name, tensor in state.items()}, weights)
    files = ModelFiles({"transformer/config.json": config, "transformer/w.safetensors": weights})
    module = empty_transformer(files, "transformer", torch.float32)
    with WeightLoader(lambda _: None) as loader:
        fill_transformer(module, files, "transformer", torch.device("cpu"), loader)
    assert [block.fp8 for block in module.blocks] == [index >= exact_blocks for index in range(2)]
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert module.blocks[0].feed_forward.linear_in.weight.dtype is (torch.float32 if exact_blocks else FP8)
