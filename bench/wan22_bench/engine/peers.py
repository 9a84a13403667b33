"""diffusers' DiT as fast as an able user makes it from public parts."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wan22_testing.modes import Mode

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


def compiled_all_fp8(module: nn.Module) -> None:
    """As compiled_fp8, and self-attention in float8 by FlashAttention-3, its inputs cast as they are."""
    fp8(module)
    compiled(module)
    _use_flash_attention_3(float8=True)


def all_fp8(module: nn.Module) -> None:
    """The same, eager."""
    fp8(module)
    _use_flash_attention_3(float8=True)


PEERS: Mapping[Mode, Prepare] = {
    Mode.BF16: compiled,
    Mode.FP8: compiled_fp8,
    Mode.ALL_FP8: compiled_all_fp8,
}
"""The strongest of each mode."""
EAGER_PEERS: Mapping[Mode, Prepare] = {Mode.BF16: eager, Mode.FP8: fp8, Mode.ALL_FP8: all_fp8}
"""What errors are measured with: the same numbers, but for what a compiler rounds otherwise."""


def restore_attention() -> None:
    """Gives diffusers its own attention back, which the others replace for all of its modules."""
    if _replaced:
        _module().dispatch_attention_fn = _replaced[0]


_replaced: list[Any] = []
"""Diffusers' own function, once it was replaced."""


def _module() -> Any:
    return importlib.import_module("diffusers.models.transformers.transformer_wan")


def _use_flash_attention_3(*, float8: bool = False) -> None:
    """Diffusers has a way in for it, but not for a wheel of this name."""
    module = _module()
    if not _replaced:
        _replaced.append(module.dispatch_attention_fn)
    plain = _replaced[0]
    attend = importlib.import_module("fa3_fwd_interface").flash_attn_func

    def dispatch(query: Tensor, key: Tensor, value: Tensor, **rest: Any) -> Tensor:
        if query.dtype is not torch.bfloat16:
            return plain(query, key, value, **rest)  # type: ignore[no-any-return]  # diffusers'
        if float8 and key.shape[1] == query.shape[1]:
            query, key, value = (each.to(torch.float8_e4m3fn) for each in (query, key, value))
        out: Tensor = attend(query, key, value)
        return out

    module.dispatch_attention_fn = dispatch
