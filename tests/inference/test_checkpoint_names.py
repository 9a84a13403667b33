"""The official names of parameters, by diffusers' own conversion of the official checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers, convert_wan_vae_to_diffusers

from wan22.variants import VARIANTS
from wan22_inference.engine import checkpoint_names as transformer_names
from wan22_inference.engine.transformer import Transformer
from wan22_inference.engine.transformer_config import read_transformer_config
from wan22_inference.engine.vae import checkpoint_names as vae_names
from wan22_inference.engine.vae.config import read_vae_config
from wan22_inference.engine.vae.vae import Vae
from wan22_testing.forwards import Work

Convert = Callable[[dict[str, Any]], Mapping[str, Any]]


def check(names: list[tuple[str, str]], convert: Convert) -> None:
    """What diffusers makes of each official name is the name that we have for diffusers."""
    converted = convert({official: diffusers for diffusers, official in names})
    assert len(names) == len(converted)
    assert all(name == wanted for name, wanted in converted.items())


@pytest.mark.parametrize("variant", ["t2v-a14b", "i2v-a14b", "ti2v-5b"])
def test_those_of_a_transformer_at_full_size(variant: str) -> None:
    work = Work(variant, VARIANTS[variant].num_layers, 832, 480, 81)
    with torch.device("meta"):
        module = Transformer(read_transformer_config(work.config, variant), torch.bfloat16)
    check(
        [transformer_names.checkpoint_names(name) for name in module.state_dict()], convert_wan_transformer_to_diffusers
    )


def test_those_of_vae_21_at_full_size() -> None:
    config = read_vae_config({"base_dim": 96})
    with torch.device("meta"):
        module = Vae(config, torch.float32)
    names = [vae_names.checkpoint_names(name, config) for name in module.state_dict()]
    check(names, convert_wan_vae_to_diffusers)
