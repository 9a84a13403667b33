"""Our DiT against diffusers', on the same weights; float32 on a CPU, where there is no TF32."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from wan22.errors import Cancelled, FailedPrecondition
from wan22_inference.engine.checkpoint_names import checkpoint_names
from wan22_inference.engine.components import empty_transformer, fill_transformer
from wan22_inference.engine.loading.loader import WeightLoader
from wan22_inference.engine.model_files import ModelFiles
from wan22_inference.engine.timesteps import Timesteps
from wan22_inference.engine.transformer import Transformer, from_patches, to_patches
from wan22_testing.model_paths import model_paths
from wan22_testing.tiny_models import TINY_VARIANTS, shared_folder

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
OFFICIAL_CONFIG = {
    "_class_name": "WanModel",
    "_diffusers_version": "0.33.0",
    "dim": 48,
    "eps": 1e-06,
    "ffn_dim": 96,
    "freq_dim": 256,
    "in_dim": 16,
    "model_type": "t2v",
    "num_heads": 2,
    "num_layers": 2,
    "out_dim": 16,
    "text_dim": 32,
    "text_len": 512,
}


def ours(folder: Path, dtype: torch.dtype = torch.float32) -> Transformer:
    files = ModelFiles(model_paths(folder))
    module = empty_transformer(files, "transformer", dtype)
    fill_transformer(module, files, "transformer", torch.device("cpu"), WeightLoader(lambda _: None))
    return module


def theirs(folder: Path) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    module = WanTransformer3DModel.from_config(json.loads((folder / "transformer" / "config.json").read_text()))
    module.load_state_dict(load_file(folder / WEIGHTS))
    module.eval()

    @torch.inference_mode()
    def run(latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return module(latents, timestep, text, return_dict=False)[0]  # type: ignore[no-any-return]  # untyped

    return run


@torch.inference_mode()
def run(module: Transformer, latents: Tensor, timesteps: Timesteps, text: Tensor) -> Tensor:
    velocity: Tensor = module(latents, timesteps, module.text_context(text), lambda: None)
    return velocity


def inputs(channels: int, size: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Latents, and the embeddings of a short text, padded."""
    generator = torch.Generator().manual_seed(sum(size))
    text = torch.zeros(1, 512, 32)
    text[:, :9] = torch.randn(1, 9, 32, generator=generator)
    return torch.randn(1, channels, *size, generator=generator), text


def error(value: Tensor, reference: Tensor) -> float:
    """Relative L2 error."""
    assert value.shape == reference.shape
    return float((value - reference).norm() / reference.norm())


@pytest.mark.parametrize("variant", TINY_VARIANTS)
@pytest.mark.parametrize("size", [(1, 4, 4), (2, 8, 12), (5, 12, 8), (3, 30, 52)])
@pytest.mark.parametrize("timestep", [1000.0, 937.5, 235.0])
def test_a_forward_equals_diffusers(variant: str, size: tuple[int, int, int], timestep: float) -> None:
    folder = shared_folder(variant)
    module = ours(folder)
    latents, text = inputs(module.config.in_channels, size)
    value = run(module, latents, Timesteps(torch.tensor([timestep]), (size[0],)), text)
    assert value.shape == (1, module.config.out_channels, *size)
    assert error(value, theirs(folder)(latents, torch.tensor([timestep]), text)) < 1e-6


@pytest.mark.parametrize(
    ("values", "latent_frames"),
    [([0.0, 700.0], (1, 4)), ([0.0, 0.0, 700.0], (1, 1, 3)), ([5.0, 4.0, 3.0, 2.0, 1.0], (1, 1, 1, 1, 1))],
)
def test_distinct_timesteps_equal_a_timestep_for_each_token(
    values: list[float], latent_frames: tuple[int, ...]
) -> None:
    folder = shared_folder("ti2v-5b-tiny")
    module = ours(folder)
    latents, text = inputs(48, (5, 8, 12))
    timesteps = Timesteps(torch.tensor(values), latent_frames)
    assert sum(timesteps.tokens(24)) == 120
    each = torch.tensor(values).repeat_interleave(torch.tensor(timesteps.tokens(24))).unsqueeze(0)
    value = run(module, latents, timesteps, text)
    assert error(value, theirs(folder)(latents, each, text)) < 1e-6
    assert error(value, run(module, latents, Timesteps(torch.tensor([700.0]), (5,)), text)) > 1e-3


def test_a_batch_of_two_gives_what_each_gives_alone() -> None:
    module = ours(shared_folder("t2v-a14b-tiny"))
    latents, text = inputs(16, (2, 8, 12))
    both, timesteps = torch.cat([latents, -latents]), Timesteps(torch.tensor([500]), (2,))
    value = run(module, both, timesteps, torch.cat([text, 2 * text]))
    assert error(value[:1], run(module, latents, timesteps, text)) < 1e-6
    assert error(value[1:], run(module, -latents, timesteps, 2 * text)) < 1e-6


def test_bfloat16_stays_near_float32() -> None:
    folder = shared_folder("t2v-a14b-tiny")
    latents, text = inputs(16, (2, 8, 12))
    timesteps = Timesteps(torch.tensor([500]), (2,))
    value = run(ours(folder, torch.bfloat16), latents, timesteps, text)
    assert value.dtype is torch.bfloat16
    assert 1e-4 < error(value.float(), run(ours(folder), latents, timesteps, text)) < 0.02


def test_the_inputs_are_left_as_they_are() -> None:
    module = ours(shared_folder("t2v-a14b-tiny"))
    latents, text = inputs(16, (2, 8, 12))
    before, timesteps = latents.clone(), Timesteps(torch.tensor([500]), (2,))
    context = module.text_context(text)
    with torch.inference_mode():
        first = module(latents, timesteps, context, lambda: None)
        again = module(latents, timesteps, context, lambda: None)
    assert torch.equal(first, again)
    assert torch.equal(latents, before)


def test_a_forward_can_be_ended_before_any_block() -> None:
    module = ours(shared_folder("t2v-a14b-tiny"))
    latents, text = inputs(16, (1, 4, 4))
    context, timesteps = module.text_context(text), Timesteps(torch.tensor([500]), (1,))
    ran: list[int] = []
    for number, block in enumerate(module.blocks):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    checks = iter([False, True])

    def check() -> None:
        if next(checks):
            raise Cancelled("Enough.")

    with pytest.raises(Cancelled):
        module(latents, timesteps, context, check)
    assert ran == [0]


def test_patches_come_back_as_they_were_cut() -> None:
    latents = torch.randn(2, 3, 2, 4, 6)
    tokens = to_patches(latents)
    assert tokens.shape == (2, 12, 12)
    assert tokens[1, 7].tolist() == latents[1, :, 1, 0:2, 2:4].flatten().tolist()
    by_channel = tokens.unflatten(2, (3, 4)).transpose(2, 3).flatten(2)  # type: ignore[no-untyped-call]  # torch's
    assert torch.equal(from_patches(by_channel, (2, 2, 3)), latents)


def official_names() -> set[str]:
    """The keys of a WanModel of two layers, as wan/modules/model.py of the official repository has them."""
    linears = ["text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2", "time_projection.1"]
    linears += ["patch_embedding", "head.head"]
    names = {"head.modulation"}
    for block in ("blocks.0", "blocks.1"):
        names.add(f"{block}.modulation")
        linears += [f"{block}.ffn.0", f"{block}.ffn.2", f"{block}.norm3"]
        for kind in ("self_attn", "cross_attn"):
            linears += [f"{block}.{kind}.{part}" for part in "qkvo"]
            names |= {f"{block}.{kind}.norm_q.weight", f"{block}.{kind}.norm_k.weight"}
    return names | {f"{linear}.{leaf}" for linear in linears for leaf in ("weight", "bias")}


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """t2v-a14b-tiny with the official names and config."""
    folder = shutil.copytree(shared_folder("t2v-a14b-tiny"), tmp_path / "model")
    stored = load_file(folder / WEIGHTS)
    names = dict(checkpoint_names(name) for name in ours(folder).state_dict())
    assert set(names.values()) == official_names()
    save_file({names[name]: tensor for name, tensor in stored.items()}, folder / WEIGHTS)
    (folder / "transformer" / "config.json").write_text(json.dumps(OFFICIAL_CONFIG))
    return folder


def test_either_sources_names_give_the_same_bits(official: Path) -> None:
    latents, text = inputs(16, (2, 8, 12))
    timesteps = Timesteps(torch.tensor([500]), (2,))
    value = run(ours(official), latents, timesteps, text)
    assert torch.equal(value, run(ours(shared_folder("t2v-a14b-tiny")), latents, timesteps, text))


def test_a_missing_official_weight_is_named(official: Path) -> None:
    stored = load_file(official / WEIGHTS)
    del stored["blocks.1.norm3.bias"]
    save_file(stored, official / WEIGHTS)
    with pytest.raises(FailedPrecondition, match=r"lacks blocks\.1\.norm2\.bias or blocks\.1\.norm3\.bias"):
        ours(official)


@pytest.mark.parametrize("name", ["blocks.2.ffn.0.weight", "img_emb.proj.0.weight", "blocks.0.norm2.gain"])
def test_an_unexpected_official_weight_is_named(official: Path, name: str) -> None:
    save_file(load_file(official / WEIGHTS) | {name: torch.zeros(1)}, official / WEIGHTS)
    with pytest.raises(FailedPrecondition, match=f"holds {name}, which the architecture does not have"):
        ours(official)


def test_a_weight_under_both_names_is_refused(official: Path) -> None:
    stored = load_file(official / WEIGHTS)
    save_file(stored | {"proj_out.bias": stored["head.head.bias"].clone()}, official / WEIGHTS)
    with pytest.raises(FailedPrecondition, match=r"holds (proj_out|head\.head)\.bias twice"):
        ours(official)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"model_type": "s2v"}, "model_type is s2v, where this engine knows t2v or i2v or ti2v"),
        ({"patch_size": [1, 4, 4]}, r"patch_size is \[1, 4, 4\]"),
        ({"num_persons": 2}, "has the key num_persons, which this engine does not know"),
        ({"num_layers": None}, "lacks num_layers"),
        ({"ffn_dim": 96.5}, "ffn_dim is 96.5, which is no whole number"),
        ({"num_heads": "2"}, "num_heads is 2, which is no size"),
        ({"num_heads": 5}, "dim is 48, which 5 heads do not divide"),
        ({"eps": float("nan")}, "eps is nan, which is no size"),
    ],
)
def test_a_config_that_is_not_ours_is_refused(official: Path, changed: dict[str, Any], what: str) -> None:
    (official / "transformer" / "config.json").write_text(json.dumps(OFFICIAL_CONFIG | changed))
    with pytest.raises(FailedPrecondition, match=what):
        ours(official)


@pytest.mark.parametrize("changed", [{"image_dim": 1280}, {"added_kv_proj_dim": 5120}, {"qk_norm": None}])
def test_a_wan21_config_is_refused(official: Path, changed: dict[str, Any]) -> None:
    config = json.loads((shared_folder("t2v-a14b-tiny") / "transformer" / "config.json").read_text())
    (official / "transformer" / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(FailedPrecondition, match=f"{next(iter(changed))} is"):
        ours(official)
