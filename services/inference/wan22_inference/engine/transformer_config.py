"""The sizes of a DiT, read from diffusers' config.json or the official repository's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from wan22_inference.engine.model_files import misfit

PATCH = (1, 2, 2)
"""Latent frames, rows and columns that make one token; the same in all WAN2.2 models."""

_OFFICIAL = {
    "dim": "dim",
    "num_heads": "num_heads",
    "num_layers": "num_layers",
    "ffn_dim": "ffn_dim",
    "in_dim": "in_channels",
    "out_dim": "out_channels",
    "text_dim": "text_dim",
    "freq_dim": "freq_dim",
    "eps": "eps",
}
_DIFFUSERS = {
    "num_attention_heads": "num_heads",
    "attention_head_dim": "head_dim",
    "num_layers": "num_layers",
    "ffn_dim": "ffn_dim",
    "in_channels": "in_channels",
    "out_channels": "out_channels",
    "text_dim": "text_dim",
    "freq_dim": "freq_dim",
    "eps": "eps",
}
_OPTIONAL: Mapping[str, float] = {"text_dim": 4096, "freq_dim": 256, "eps": 1e-6}
"""What both sources leave out of some of their configs, and all WAN2.2 models share."""

_FIXED: Mapping[str, tuple[object, ...]] = {
    "model_type": ("t2v", "i2v", "ti2v"),
    "patch_size": (list(PATCH),),
    "text_len": (512,),
    "window_size": ([-1, -1],),
    "qk_norm": (True, "rms_norm_across_heads"),
    "cross_attn_norm": (True,),
    "rope_max_seq_len": (1024,),
    "image_dim": (None,),
    "added_kv_proj_dim": (None,),
    "pos_embed_seq_len": (None,),
}
"""Keys that may be there, with the only values that this architecture has."""


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The sizes that differ between WAN2.2's models."""

    num_heads: int
    head_dim: int
    num_layers: int
    ffn_dim: int
    in_channels: int
    """Latent channels, and for i2v 4 of mask and 16 of condition."""
    out_channels: int
    text_dim: int
    """Of the text encoder's embeddings."""
    freq_dim: int
    """Sines and cosines that a timestep is turned into."""
    eps: float
    """Of all norms."""

    @property
    def dim(self) -> int:
        """Channels of a token."""
        return self.num_heads * self.head_dim


def read_transformer_config(config: Mapping[str, object], component: str) -> TransformerConfig:
    """Reads a parsed config.json of either source; `component` names it in errors.

    Raises FailedPrecondition (MODEL_MISFIT) naming a key that is missing, unknown, or of a value that no WAN2.2 model
    of this architecture has.
    """
    file = f"{component}/config.json"
    keys = _OFFICIAL if "dim" in config else _DIFFUSERS
    for key, value in config.items():
        if key in _FIXED:
            if value not in _FIXED[key]:
                known = " or ".join(str(known) for known in _FIXED[key])
                raise misfit(f"{file} says {key} is {value}, where this engine knows {known}")
        elif key not in keys and not key.startswith("_"):
            raise misfit(f"{file} has the key {key}, which this engine does not know")
    sizes = {
        name: _size(file, key, config.get(key, _OPTIONAL.get(name)), whole=name != "eps") for key, name in keys.items()
    }
    if "dim" in sizes:
        dim = sizes.pop("dim")
        if dim % sizes["num_heads"]:
            raise misfit(f"{file} says dim is {dim}, which {sizes['num_heads']} heads do not divide")
        sizes["head_dim"] = dim // sizes["num_heads"]
    return TransformerConfig(**sizes)  # type: ignore[arg-type]  # whole numbers but for eps: _size has checked


def _size(file: str, key: str, value: object, *, whole: bool) -> float:
    if value is None:
        raise misfit(f"{file} lacks {key}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value > 0 and math.isfinite(value)):
        raise misfit(f"{file} says {key} is {value}, which is no size")
    if whole and not isinstance(value, int):
        raise misfit(f"{file} says {key} is {value}, which is no whole number")
    return value
