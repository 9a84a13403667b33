"""Self-attention whose queries, keys and values are in float8, and the choice of what computes it.

An e4m3 number has three bits of mantissa, whatever its scale: scales keep numbers in range, and precision comes from
what is subtracted before. Keys less their mean over tokens give the same softmax, since what is missing is the same for
all keys of a query; values less theirs give a result that lacks it, as the weights of a query sum to 1: whoever takes
the result adds it. Both means are of a few tokens only, as any constant would be exact.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wan22_inference.engine.attention import (
    load_flash_attention_3,
    refuse_after_trial,
    refuse_flash_attention_3,
    sdpa,
)
from wan22_inference.engine.heads8 import SAMPLED, Heads8, centre, normed_scale
from wan22_inference.engine.operations import Operations
from wan22_inference.engine.rope import Rotary

log = logging.getLogger(__name__)

Attend8 = Callable[[Heads8, Heads8, Heads8], Tensor]

_TOLERANCE = 0.1
"""Relative L2 error that a backend may have on its trial; e4m3's own is about 0.05 on such numbers."""


@dataclass(frozen=True)
class Choice8:
    """A backend, and why it is the one; `attend` is None where there is none."""

    name: str
    """fa3-fp8, plain-fp8 or none."""
    attend: Attend8 | None
    reason: str


@functools.cache
def choose8(device: torch.device, head_dim: int) -> Choice8:
    """What computes attention in float8 on a device: chosen once, logged, the same for the life of the process."""
    choice = _choose(device, head_dim)
    log.info("Attention of float8, heads of %d, on %s: %s (%s).", head_dim, device, choice.name, choice.reason)
    return choice


def _choose(device: torch.device, head_dim: int) -> Choice8:
    if device.type != "cuda":
        return Choice8("plain-fp8", plain, "the others need a CUDA device")
    refusal = refuse_flash_attention_3(device, torch.bfloat16, head_dim) or _try(flash_attention_3, device, head_dim)
    if refusal is not None:
        return Choice8("none", None, f"not fa3: {refusal}; attention stays in the compute dtype")
    return Choice8("fa3-fp8", flash_attention_3, "the only one")


def plain(q: Heads8, k: Heads8, v: Heads8) -> Tensor:
    """By torch alone, in float32: the plain path, which rounds no weight of the softmax to float8."""
    return sdpa(q.float(), k.float(), v.float())


def flash_attention_3(q: Heads8, k: Heads8, v: Heads8) -> Tensor:
    """FlashAttention-3's float8 kernel: softmax's weights in float8 too, the result in bfloat16."""
    scales = {"q_descale": q.scale, "k_descale": k.scale, "v_descale": v.scale}
    return load_flash_attention_3()(q.data, k.data, v.data, **scales)


def queries8(ops: Operations, query: Tensor, gain: Tensor, num_heads: int, eps: float, rotary: Rotary) -> Heads8:
    """Projected queries (B, L, dim) with their norm and rotation; `gain` is the norm's. What is given may go."""
    scale = normed_scale(gain, num_heads, len(query), centred=False)
    return ops.norm_rotate_heads8(query, gain, eps, rotary, None, scale)


def keys8(ops: Operations, key: Tensor, gain: Tensor, num_heads: int, eps: float, rotary: Rotary) -> Heads8:
    """The same of keys, less their mean over tokens, which changes no softmax."""
    sample = ops.norm_rotate_heads(key[:, ::SAMPLED].contiguous(), gain, num_heads, eps, rotary.sampled)
    mean = sample.flatten(2).float().mean(1)
    scale = normed_scale(gain, num_heads, len(key), centred=True)
    return ops.norm_rotate_heads8(key, gain, eps, rotary, mean, scale)


def values8(ops: Operations, value: Tensor, num_heads: int) -> tuple[Heads8, Tensor]:
    """Projected values (B, L, dim) less their mean over tokens (B, dim), which is to be added to what comes of them."""
    mean, scale = centre(value, num_heads)
    return ops.centred_heads8(value, mean, scale), mean


def _try(attend: Attend8, device: torch.device, head_dim: int) -> str | None:
    """Why a backend is not to be used after a small trial."""
    generator = torch.Generator("cpu").manual_seed(0)
    scale = torch.tensor([[0.01, 0.02]], device=device)
    drawn = torch.randn(3, 1, 192, 2, head_dim, generator=generator).to(device)
    q, k, v = (Heads8((one / scale[:, None, :, None]).to(torch.float8_e4m3fn), scale) for one in drawn)
    return refuse_after_trial(lambda: attend(q, k, v), plain(q, k, v), _TOLERANCE)
