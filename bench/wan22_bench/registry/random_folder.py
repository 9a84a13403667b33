"""A whole model of random weights as a registry's cache has it: packed, its experts' linear layers in float8."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from wan22.pack.writer import pack_file
from wan22_bench.registry.model_weights import VAE_DIMS
from wan22_inference.engine.checkpoint_names import checkpoint_names
from wan22_inference.engine.text_encoder_names import checkpoint_names as text_encoder_checkpoint_names
from wan22_inference.engine.vae.checkpoint_names import checkpoint_names as vae_checkpoint_names
from wan22_testing import tiny_tokenizer
from wan22_testing.forwards import Work, free_memory, random_transformer
from wan22_testing.model_paths import model_paths
from wan22_testing.random_model import make_text_encoder, make_vae
from wan22_testing.sizes import UMT5_TINY, UMT5_XXL, random_variant

UMT5_PIECES = 255_000
"""Of UMT5's tokenizer, beside those that the tiny one has."""


def make_folder(folder: Path, variant_name: str, device: torch.device) -> dict[str, Path]:
    """Writes the model, one part at a time on the device, and returns its files by their paths in the model."""
    variant = random_variant(variant_name)
    tokenizer = folder / "tokenizer" / "tokenizer.json"
    tokenizer.parent.mkdir()
    tiny_tokenizer.build(unused=0 if variant.small else UMT5_PIECES).save(str(tokenizer))
    sizes = UMT5_TINY if variant.small else UMT5_XXL
    encoder = make_text_encoder(sizes, device)
    state = {text_encoder_checkpoint_names(name)[0]: tensor for name, tensor in encoder.state_dict().items()}
    _write(folder / "text_encoder", sizes, state)
    del encoder, state
    work = Work(variant_name, variant.num_layers, 832, 480, 81)
    for seed, component in enumerate(("transformer", "transformer_2")[: variant.experts]):
        free_memory(device)
        module = random_transformer(work, seed, device, fp8=True)
        state = {checkpoint_names(name)[0]: tensor for name, tensor in module.state_dict().items()}
        _write(folder / component, work.config, state)
        del module, state
    free_memory(device)
    config = {"base_dim": VAE_DIMS[variant_name]}
    vae = make_vae(config, device)
    state = {vae_checkpoint_names(name, vae.config)[0]: tensor for name, tensor in vae.state_dict().items()}
    _write(folder / "vae", config, state)
    return model_paths(folder)


def _write(folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    plain = folder / "model.safetensors"
    save_file({name: tensor.contiguous().cpu() for name, tensor in state.items()}, plain)
    pack_file(plain, plain.with_name(f"{plain.name}.pack"), lambda _: None)
    plain.unlink()
