"""A model in the official repository's layout makes the same videos as the same model in diffusers'."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from wan22.cache import Cache
from wan22.model_client import ModelClient
from wan22.model_folder import infer_variant, read_model_folder
from wan22.model_packing import Packer
from wan22.parameters import Parameters
from wan22.pickle_conversion import convert
from wan22.variants import VARIANTS
from wan22_inference.engine.generate import Run, generate
from wan22_inference.engine.model import Model
from wan22_inference.engine.model_load import load_model

from . import official_model
from .conftest import Registry


@pytest.mark.parametrize("variant", ["t2v-a14b-tiny", "ti2v-5b-tiny"])
async def test_both_layouts_make_the_same_bytes(
    variant: str,
    registry: Registry,
    tiny_model: Callable[[str], Model],
    parameters: Callable[..., Parameters],
    tmp_path: Path,
) -> None:
    folder = official_model.write(variant, tmp_path / "official")
    assert infer_variant(folder) == variant
    async with ModelClient(registry.address) as client:
        packer = Packer(tmp_path / "packing", variant)
        version = await client.push_folder(folder, model="m", variant=variant, tags=["latest"], packer=packer)
        cached = await Cache(tmp_path / "cache").pull(version, client)
    model = load_model(VARIANTS[variant], cached.files, torch.device("cpu"), lambda _: None)
    videos = []
    for number, loaded in enumerate([tiny_model(variant), model]):
        path = tmp_path / f"{number}.mp4"
        chosen = parameters(variant, num_inference_steps=2)
        generate(loaded, chosen, {}, path, Run(report=lambda _: None, should_stop=lambda: False))
        videos.append(path.read_bytes())
    cached.close()
    assert videos[0] == videos[1]


def test_a_pickled_text_encoder_and_vae_convert_to_the_same_files(tmp_path: Path) -> None:
    pickled = official_model.write("t2v-a14b-tiny", tmp_path / "pickled", pickles=True)
    plain = official_model.write("t2v-a14b-tiny", tmp_path / "plain")
    pickles = sorted(pickled.glob("*.pth"))
    assert [path.name for path in pickles] == ["Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"]
    for path in pickles:
        converted = path.with_suffix(".safetensors")
        convert(path, converted, lambda *_: None)
        ours, theirs = load_file(converted), load_file(plain / converted.name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert len(read_model_folder(pickled).files) == len(read_model_folder(plain).files)
