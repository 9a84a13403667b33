"""Writes a tiny model as the official repository lays one out.

The tables are made from the source of Wan-Video/Wan2.2 alone, not from the engine's own. *_NAMES are the beginnings of
SHA-256 digests of the sorted parameter names that its classes have at the tiny variants' sizes: WanModel, T5Encoder and
the WanVAE_ of both versions.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from wan22_testing.sizes import random_variant
from wan22_testing.tiny_models import TEXT_DIM, shared_folder

TRANSFORMER_NAMES, TEXT_ENCODER_NAMES = "b1def63576ff5a82", "3032468396bd3099"
VAE_NAMES = {16: "eedc21d9e9958c45", 48: "12928a5a665da563"}
"""By latent channels."""

Table = Sequence[tuple[str, str]]
_ATTENTION: Table = [
    ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), (r"to_out\.0", "o"), ("norm_q", "norm_q"), ("norm_k", "norm_k"),
]  # fmt: skip
TRANSFORMER: Table = [
    (r"^condition_embedder\.time_embedder\.linear_1", "time_embedding.0"),
    (r"^condition_embedder\.time_embedder\.linear_2", "time_embedding.2"),
    (r"^condition_embedder\.time_proj", "time_projection.1"),
    (r"^condition_embedder\.text_embedder\.linear_1", "text_embedding.0"),
    (r"^condition_embedder\.text_embedder\.linear_2", "text_embedding.2"),
    (r"^scale_shift_table", "head.modulation"),
    (r"^proj_out", "head.head"),
    *((rf"attn1\.{theirs}\.", f"self_attn.{official}.") for theirs, official in _ATTENTION),
    *((rf"attn2\.{theirs}\.", f"cross_attn.{official}.") for theirs, official in _ATTENTION),
    (r"\.norm2\.", ".norm3."),
    (r"ffn\.net\.0\.proj", "ffn.0"),
    (r"ffn\.net\.2", "ffn.2"),
    (r"scale_shift_table", "modulation"),
]
TEXT_ENCODER: Table = [
    ("^shared", "token_embedding"),
    (r"^encoder\.final_layer_norm", "norm"),
    (r"^encoder\.block", "blocks"),
    (r"layer\.0\.SelfAttention\.relative_attention_bias", "pos_embedding.embedding"),
    (r"layer\.0\.SelfAttention", "attn"),
    (r"layer\.0\.layer_norm", "norm1"),
    (r"layer\.1\.layer_norm", "norm2"),
    (r"layer\.1\.DenseReluDense\.wi_0", "ffn.gate.0"),
    (r"layer\.1\.DenseReluDense\.wi_1", "ffn.fc1"),
    (r"layer\.1\.DenseReluDense\.wo", "ffn.fc2"),
]
_VAE: Table = [
    (r"^quant_conv", "conv1"),
    (r"^post_quant_conv", "conv2"),
    (r"conv_in", "conv1"),
    (r"norm_out", "head.0"),
    (r"conv_out", "head.2"),
    (r"mid_block\.attentions\.0", "middle.1"),
    (r"mid_block\.resnets\.0", "middle.0"),
    (r"mid_block\.resnets\.1", "middle.2"),
    (r"(?<=\d)\.norm1", ".residual.0"),
    (r"(?<=\d)\.conv1", ".residual.2"),
    (r"(?<=\d)\.norm2", ".residual.3"),
    (r"(?<=\d)\.conv2", ".residual.6"),
    (r"conv_shortcut", "shortcut"),
]


def _renamed(name: str, table: Table) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def _vae_name(name: str, *, residual: bool) -> str:
    """Levels are folders of parts in the 2.2 VAE (`residual`); in the 2.1 VAE parts are numbered through all levels."""
    side, _, rest = _renamed(name, _VAE).partition(".")
    match = re.fullmatch(
        r"(?:up|down)_blocks\.(\d+)\.(?:resnets\.(\d)\.)?(?:(?:up|down)samplers?\.(?:0\.)?)?(.*)", rest
    )
    if match is None:
        return f"{side}.{rest}"
    level, group, inner = int(match[1]), {"encoder": "downsamples", "decoder": "upsamples"}[side], match[3]
    last = {"encoder": 2, "decoder": 3}[side]
    part = last if match[2] is None else int(match[2])
    if residual:
        return f"{side}.{group}.{level}.{group}.{part}.{inner}"
    return f"{side}.{group}.{level if side == 'encoder' else 4 * level + part}.{inner}"


def _save(tensors: Mapping[str, Tensor], names: Mapping[str, str], path: Path, golden: str) -> None:
    assert hashlib.sha256("\n".join(sorted(names.values())).encode()).hexdigest().startswith(golden)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({names[name]: tensor for name, tensor in tensors.items()}, path)


def write(variant_name: str, folder: Path, *, pickles: bool = False) -> Path:
    """The tiny variant's own weights under official names, text encoder and VAE as safetensors or as pickles."""
    variant, source = random_variant(variant_name), shared_folder(variant_name)
    model_type = {"refused": "t2v", "required": "i2v", "optional": "ti2v"}[variant.image]
    experts = ["high_noise_model", "low_noise_model"] if variant.experts == 2 else ["."]
    for component, expert in zip(("transformer", "transformer_2"), experts, strict=False):
        tensors = load_file(source / component / "diffusion_pytorch_model.safetensors")
        names = {name: _renamed(name, TRANSFORMER) for name in tensors}
        stem = "diffusion_pytorch_model-00001-of-00001.safetensors"
        _save(tensors, names, folder / expert / stem, TRANSFORMER_NAMES)
        index = {"metadata": {"total_size": 0}, "weight_map": dict.fromkeys(names.values(), stem)}
        (folder / expert / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
        config = {"_class_name": "WanModel", "_diffusers_version": "0.33.0", "dim": variant.dim, "eps": 1e-06}
        config |= {"ffn_dim": variant.ffn_dim, "freq_dim": 256, "in_dim": variant.in_channels, "num_heads": 2}
        config |= {"model_type": model_type, "num_layers": variant.num_layers, "out_dim": variant.latent_channels}
        config |= {"text_len": 512, "text_dim": TEXT_DIM}  # the real ones, of the default 4096, leave the last out
        (folder / expert / "config.json").write_text(json.dumps(config))
    (folder / "configuration.json").write_text('{"framework": "Pytorch", "task": "text-to-video"}')
    (folder / "assets").mkdir()
    (folder / "assets" / "logo.png").write_bytes(b"\x89PNG")
    shutil.copytree(source / "tokenizer", folder / "google" / "umt5-xxl")
    (folder / "google" / "umt5-xxl" / "spiece.model").write_bytes(b"older form")
    text = load_file(source / "text_encoder" / "model.safetensors")
    text.pop("encoder.embed_tokens.weight", None)
    t5 = folder / "models_t5_umt5-xxl-enc-bf16.safetensors"
    _save(text, {name: _renamed(name, TEXT_ENCODER) for name in text}, t5, TEXT_ENCODER_NAMES)
    tensors = load_file(source / "vae" / "diffusion_pytorch_model.safetensors")
    names = {name: _vae_name(name, residual=variant.experts == 1) for name in tensors}
    vae = folder / ("Wan2.1_VAE.safetensors" if variant.experts == 2 else "Wan2.2_VAE.safetensors")
    _save(tensors, names, vae, VAE_NAMES[variant.latent_channels])
    for path in (t5, vae) if pickles else ():
        torch.save(load_file(path), path.with_suffix(".pth"))
        path.unlink()
    return folder
