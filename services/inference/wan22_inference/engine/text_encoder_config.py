"""The sizes of the text encoder, read from transformers' config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from wan22_inference.engine.model_files import misfit

_FILE = "text_encoder/config.json"
_FIXED: Mapping[str, object] = {"model_type": "umt5", "feed_forward_proj": "gated-gelu", "is_decoder": False}
"""Keys that may be there, with the only value that WAN2.2's text encoder has."""
_DEFAULTS: Mapping[str, float] = {
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "pad_token_id": 0,
}
"""UMT5Config's own of what may be left out."""


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """The sizes of a UMT5 encoder."""

    vocab_size: int
    dim: int
    """Channels of a token, and of its embedding."""
    num_heads: int
    head_dim: int
    """Heads times this need not be `dim`."""
    num_layers: int
    ffn_dim: int
    num_buckets: int
    """Kinds of distance between two tokens; each has a bias a layer and head."""
    max_distance: int
    """Tokens from which on all distances are one."""
    eps: float
    """Of all norms."""
    pad_token: int


def read_text_encoder_config(config: Mapping[str, object]) -> TextEncoderConfig:
    """Reads a parsed text_encoder/config.json; keys that say nothing about the encoder's function are not looked at.

    Raises FailedPrecondition (MODEL_MISFIT) naming a key that is missing, or of a value that no UMT5 encoder has.
    """
    for key, known in _FIXED.items():
        if config.get(key, known) != known:
            raise misfit(f"{_FILE} says {key} is {config[key]}, where this engine knows {known}")
    read = TextEncoderConfig(
        vocab_size=_size(config, "vocab_size"),
        dim=_size(config, "d_model"),
        num_heads=_size(config, "num_heads"),
        head_dim=_size(config, "d_kv"),
        num_layers=_size(config, "num_layers"),
        ffn_dim=_size(config, "d_ff"),
        num_buckets=_size(config, "relative_attention_num_buckets"),
        max_distance=_size(config, "relative_attention_max_distance"),
        eps=_number(config, "layer_norm_epsilon"),
        pad_token=_size(config, "pad_token_id", least=0),
    )
    if read.num_buckets % 4 or read.max_distance <= read.num_buckets // 4:
        raise misfit(
            f"{_FILE} says relative_attention_num_buckets is {read.num_buckets} and relative_attention_max_distance "
            f"{read.max_distance}: the first is a multiple of 4, and a fourth of it less than the second"
        )
    return read


def _number(config: Mapping[str, object], key: str) -> float:
    value = config.get(key, _DEFAULTS.get(key))
    if value is None:
        raise misfit(f"{_FILE} lacks {key}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value >= 0 and math.isfinite(value)):
        raise misfit(f"{_FILE} says {key} is {value}, which is no size")
    return value


def _size(config: Mapping[str, object], key: str, *, least: int = 1) -> int:
    value = _number(config, key)
    if not isinstance(value, int) or value < least:
        raise misfit(f"{_FILE} says {key} is {value}, which is no whole number from {least} on")
    return value
