"""Makes random models of the tiny variants, for tests: seeded, the same bytes in each process, in diffusers' format."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from safetensors.torch import save_file
from torch import Tensor, nn

from wan22 import variants
from wan22.official_configs import LATENTS_MEAN_22, LATENTS_STD_22
from wan22.variants import VARIANTS, Variant
from wan22_inference.engine.text_encoder_config import read_text_encoder_config
from wan22_inference.engine.text_encoder_model import TextEncoderModel
from wan22_inference.engine.text_encoder_names import checkpoint_names as text_encoder_checkpoint_names
from wan22_testing import tiny_tokenizer
from wan22_testing.sizes import random_variant

TINY_VARIANTS = tuple(name for name, variant in VARIANTS.items() if variant.small)
TEXT_DIM = 32


def make(variant_name: str, folder: Path) -> None:
    """Writes one tiny variant's model into a new folder."""
    variant = random_variant(variant_name)
    write_frame(variant, folder)
    _write_text_encoder(folder / "text_encoder", seed=f"{variant_name}/text_encoder")
    for component in ("transformer", "transformer_2")[: variant.experts]:
        _save(new_transformer(variant, text_dim=TEXT_DIM), folder / component, seed=f"{variant_name}/{component}")
    _save(_vae(variant), folder / "vae", seed=f"{variant_name}/vae")


def write_frame(variant: Variant, folder: Path) -> None:
    """Writes what a tiny model has beside weights into a new folder: tokenizer, scheduler and index."""
    (folder / "tokenizer").mkdir(parents=True)
    tiny_tokenizer.build().save(str(folder / "tokenizer" / "tokenizer.json"))
    _write_json(folder / "tokenizer" / "tokenizer_config.json", _tokenizer_config())
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=variant.flow_shift
    )
    scheduler.save_pretrained(folder / "scheduler")
    _write_json(folder / "model_index.json", _model_index(variant))


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 512,
        "pad_token": tiny_tokenizer.PAD,
        "eos_token": tiny_tokenizer.END,
        "bos_token": tiny_tokenizer.BEGIN,
        "unk_token": tiny_tokenizer.UNKNOWN,
    }


def text_encoder_config(**sizes: float) -> dict[str, Any]:
    """The configuration of a small UMT5 over the tiny tokenizer, as transformers reads it; `sizes` are more of it."""
    return {
        "architectures": ["UMT5EncoderModel"],
        "model_type": "umt5",
        "vocab_size": tiny_tokenizer.build().get_vocab_size(),
        "num_heads": 4,
        "num_layers": 2,
        **sizes,
        "feed_forward_proj": "gated-gelu",
        "pad_token_id": tiny_tokenizer.SPECIAL.index(tiny_tokenizer.PAD),
        "eos_token_id": tiny_tokenizer.SPECIAL.index(tiny_tokenizer.END),
        "decoder_start_token_id": tiny_tokenizer.SPECIAL.index(tiny_tokenizer.PAD),
    }


def new_transformer(variant: Variant, *, text_dim: int, heads: int = 2) -> WanTransformer3DModel:
    """A DiT of the variant's sizes, as torch initialises it."""
    return WanTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=variant.dim // heads,
        in_channels=variant.in_channels,
        out_channels=variant.latent_channels,
        text_dim=text_dim,
        ffn_dim=variant.ffn_dim,
        num_layers=variant.num_layers,
    )


def _vae(variant: Variant) -> AutoencoderKLWan:
    if variant.experts == 2:
        return AutoencoderKLWan(base_dim=4, z_dim=variant.latent_channels)
    return AutoencoderKLWan(
        base_dim=8,
        decoder_base_dim=12,
        z_dim=variant.latent_channels,
        latents_mean=list(LATENTS_MEAN_22),
        latents_std=list(LATENTS_STD_22),
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=variant.spatial_stride,
    )


def _model_index(variant: Variant) -> dict[str, Any]:
    index: dict[str, Any] = {
        "_class_name": "WanImageToVideoPipeline" if variant.image == "required" else "WanPipeline",
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "transformer_2": ["diffusers", "WanTransformer3DModel"] if variant.experts == 2 else [None, None],
        "vae": ["diffusers", "AutoencoderKLWan"],
        "boundary_ratio": variant.boundary,
        "expand_timesteps": variant.experts == 1,
    }
    if variant.image == "required":
        index |= {"image_encoder": [None, None], "image_processor": [None, None]}
    return index


def _write_text_encoder(folder: Path, *, seed: str) -> None:
    config = text_encoder_config(d_model=TEXT_DIM, d_kv=8, d_ff=64)
    with torch.device("meta"):
        module = TextEncoderModel(read_text_encoder_config(config))
    named = {text_encoder_checkpoint_names(name)[0]: tensor for name, tensor in module.state_dict().items()}
    folder.mkdir()
    _write_json(folder / "config.json", config)
    weights = {name: _weight(name, tensor, seed) for name, tensor in named.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _save(module: nn.Module, folder: Path, *, seed: str) -> None:
    state = {name: _weight(name, tensor, seed) for name, tensor in module.state_dict().items()}
    module.load_state_dict(state)
    module.save_pretrained(folder)  # type: ignore[operator]  # of diffusers' models


def _weight(name: str, like: Tensor, seed: str) -> Tensor:
    """Draws one tensor from the seed and its own name, so that no order of modules matters.

    Scaled by fan-in, so that activations keep their size and frames neither saturate nor come out flat.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    noise = torch.randn(like.shape, generator=generator, dtype=torch.float32)
    leaf = name.rpartition(".")[2]
    if leaf == "bias":
        return noise * 0.02
    if leaf == "scale_shift_table":
        return noise / math.sqrt(like.shape[-1])
    if leaf == "gamma" or like.ndim == 1:
        return 1.0 + 0.1 * noise
    if name == "shared.weight" or "relative_attention_bias" in name:
        return noise
    return noise * _GAINS.get(name, 1.0) / math.sqrt(like[0].numel())


_GAINS = {"decoder.conv_out.weight": 0.6, "encoder.conv_out.weight": 2.0}
"""The decoder's so that most pixels lie within [-1, 1]; the encoder's so that latents spread like real ones."""


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def shared_folder(variant_name: str) -> Path:
    """A tiny model's folder under the system's temporary folder, made at the first call of any process.

    It is keyed by the source of the makers and the variants, so that an edited one makes another.
    """
    source = b"".join(Path(file).read_bytes() for file in (__file__, tiny_tokenizer.__file__, variants.__file__))
    key = hashlib.sha256(source).hexdigest()[:16]
    root = Path(tempfile.gettempdir()) / f"wan22-tiny-models-{os.getuid()}-{key}"
    folder = root / variant_name
    if not folder.exists():
        root.mkdir(exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=root))
        make(variant_name, unfinished / variant_name)
        try:
            (unfinished / variant_name).rename(folder)
        except OSError:  # another process was first: the two are the same
            if not folder.exists():
                raise
        shutil.rmtree(unfinished)
    return folder
