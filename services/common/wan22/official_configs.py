"""Configurations of the official text encoder and VAEs, which are published without: told by their tensors' shapes.

Sources: wan/modules/t5.py, vae2_1.py and vae2_2.py of Wan-Video/Wan2.2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from wan22.pack.malformed import MalformedFile

Shapes = Mapping[str, tuple[int, ...]]

LATENTS_MEAN_22 = (
    *(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891),
    *(0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502),
    *(-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723),
    *(-0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
)
"""Of vae2_2.py, by latent channel. Those of the 2.1 VAE are what every reader takes without a configuration."""
LATENTS_STD_22 = (
    *(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901),
    *(0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659),
    *(0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944),
    *(0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
)
RGB = 3
_LEVELS = (1, 2, 4, 4)
"""Channels of the VAEs' levels, as multiples of the first's."""


def text_encoder_config(shapes: Shapes) -> bytes:
    """A UMT5 configuration, JSON. Raises MalformedFile for tensors of something else."""
    vocab_size, d_model = _shape(shapes, "token_embedding.weight", 2)
    buckets, heads = _shape(shapes, "blocks.0.pos_embedding.embedding.weight", 2)
    inner, _ = _shape(shapes, "blocks.0.attn.q.weight", 2)
    d_ff, _ = _shape(shapes, "blocks.0.ffn.gate.0.weight", 2)
    if not heads or inner % heads:
        raise MalformedFile(f"its attention has {inner} channels, which {heads} heads do not divide")
    return _json(
        {
            "architectures": ["UMT5EncoderModel"],
            "model_type": "umt5",
            "vocab_size": vocab_size,
            "d_model": d_model,
            "d_kv": inner // heads,
            "d_ff": d_ff,
            "num_heads": heads,
            "num_layers": len({name.split(".")[1] for name in shapes if name.startswith("blocks.")}),
            "relative_attention_num_buckets": buckets,
            "relative_attention_max_distance": 128,
            "feed_forward_proj": "gated-gelu",
            "layer_norm_epsilon": 1e-6,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "decoder_start_token_id": 0,
        }
    )


def vae_config(shapes: Shapes) -> bytes:
    """The configuration of the 2.1 or the 2.2 VAE, JSON. Raises MalformedFile for tensors of something else."""
    encoder_dim, in_channels, *_ = _shape(shapes, "encoder.conv1.weight", 5)
    top, z_dim, *_ = _shape(shapes, "decoder.conv1.weight", 5)
    config: dict[str, object] = {
        "_class_name": "AutoencoderKLWan",
        "base_dim": encoder_dim,
        "z_dim": z_dim,
        "dim_mult": list(_LEVELS),
        "num_res_blocks": 2,
        "temperal_downsample": [False, True, True],
    }
    if in_channels == RGB:
        return _json(config)
    patch = 2
    if (in_channels, z_dim) != (RGB * patch**2, len(LATENTS_MEAN_22)):
        raise MalformedFile(f"its VAE takes {in_channels} channels to {z_dim}, which neither that of 2.1 nor 2.2 does")
    return _json(
        config
        | {
            "decoder_base_dim": top // _LEVELS[-1],
            "is_residual": True,
            "in_channels": in_channels,
            "out_channels": in_channels,
            "patch_size": patch,
            "scale_factor_spatial": patch * 2 ** (len(_LEVELS) - 1),
            "latents_mean": list(LATENTS_MEAN_22),
            "latents_std": list(LATENTS_STD_22),
        }
    )


def _shape(shapes: Shapes, name: str, dimensions: int) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None:
        raise MalformedFile(f"it has no tensor {name}")
    if len(shape) != dimensions:
        raise MalformedFile(f"its tensor {name} has shape {list(shape)}, and {dimensions} dimensions are wanted")
    return shape


def _json(config: Mapping[str, object]) -> bytes:
    return json.dumps(config, indent=2, sort_keys=True).encode() + b"\n"
