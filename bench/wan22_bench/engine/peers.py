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


def compiled_fp8(module: nn.Module) -> None:
    """The same, and the blocks' linear layers quantised by rows by torchao, weights and activations."""
    quantisation = importlib.import_module("torchao.quantization")
    config = quantisation.Float8DynamicActivationFloat8WeightConfig(granularity=quantisation.PerRow())
    quantisation.quantize_(module.blocks, config)
    compiled(module)


def _use_flash_attention_3() -> None:
    attend = importlib.import_module("fa3_fwd_interface").flash_attn_func

    def dispatch(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
        out: Tensor = attend(query, key, value)
        return out

    importlib.import_module("diffusers.models.transformers.transformer_wan").dispatch_attention_fn = dispatch  # type: ignore[attr-defined]  # its only way in for a wheel of another name
    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, 64)  # noqa: SLF001
