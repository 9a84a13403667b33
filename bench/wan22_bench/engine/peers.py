"""diffusers' DiT as fast as an able user makes it from public parts."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Prepare = Callable[[nn.Module], None]
"""Changes a WanTransformer3DModel in place."""


def eager(_: nn.Module) -> None:
    """As it comes."""


def compiled(module: nn.Module) -> None:
    """Each block compiled, attention by FlashAttention-3 as a custom operator."""
    _use_flash_attention_3()
    module.compile_repeated_blocks()  # type: ignore[operator]  # diffusers'


def fp8(module: nn.Module) -> None:
    """The blocks' linear layers quantised by rows by torchao, weights and activations; eager."""
    quantisation = importlib.import_module("torchao.quantization")
    config = quantisation.Float8DynamicActivationFloat8WeightConfig(granularity=quantisation.PerRow())
    quantisation.quantize_(module.blocks, config)


def compiled_fp8(module: nn.Module) -> None:
    """Both."""
    fp8(module)
    compiled(module)


def _use_flash_attention_3() -> None:
    """Diffusers has a way in for it, but not for a wheel of this name."""
    module: Any = importlib.import_module("diffusers.models.transformers.transformer_wan")
    plain = module.dispatch_attention_fn
    attend = importlib.import_module("fa3_fwd_interface").flash_attn_func

    def dispatch(query: Tensor, key: Tensor, value: Tensor, **rest: Any) -> Tensor:
        out: Tensor = attend(query, key, value) if query.dtype is torch.bfloat16 else plain(query, key, value, **rest)
        return out

    if plain.__module__ != __name__:
        module.dispatch_attention_fn = dispatch
