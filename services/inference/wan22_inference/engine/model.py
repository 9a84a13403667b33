"""One model version in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from wan22.variants import Variant
from wan22_inference.engine.components import (
    empty_transformer,
    load_text_encoder,
    load_tokenizer,
    load_transformer,
    load_vae,
)
from wan22_inference.engine.devices import compute_dtype
from wan22_inference.engine.loading.loader import OnBytes, WeightLoader
from wan22_inference.engine.model_files import ModelFiles, misfit
from wan22_inference.engine.options import EngineOptions, TextEncoderPlace
from wan22_inference.engine.placement import Placement, bytes_of, device_limit, must_stream
from wan22_inference.engine.text import TextEncoder
from wan22_inference.engine.transformer import Transformer
from wan22_inference.engine.transformer_config import read_transformer_config
from wan22_inference.engine.vae.config import read_vae_config
from wan22_inference.engine.vae.vae import Vae


@dataclass(frozen=True)
class Model:
    """A variant's modules with their weights, on one device."""

    variant: Variant
    device: torch.device
    text_encoder: TextEncoder
    transformers: tuple[Transformer, ...]
    """The high-noise expert and the low-noise one, or the only one."""
    vae: Vae
    placement: Placement


def load_model(
    variant: Variant,
    paths: Mapping[str, Path],
    device: torch.device,
    on_bytes: OnBytes,
    options: EngineOptions | None = None,
) -> Model:
    """Loads a version's files (path within the model -> local file), telling `on_bytes` as it goes.

    `on_bytes` hears as many bytes in all as the files of weights have. Raises FailedPrecondition (MODEL_MISFIT) naming
    what is missing or too much, DataLoss for a damaged file.
    """
    files = ModelFiles(paths)
    components = ("transformer", "transformer_2")[: variant.experts]
    _check_configs(variant, files, components)
    dtype = compute_dtype(device)
    options = options or EngineOptions()
    tokenizer = load_tokenizer(files)
    limit = device_limit(device, options)
    encoder_device = device if options.text_encoder is TextEncoderPlace.DEVICE else torch.device("cpu")
    vae_dtype = dtype if options.vae_decode_dtype == "auto" else getattr(torch, options.vae_decode_dtype)
    with WeightLoader(on_bytes) as loader:
        encoder = load_text_encoder(files, encoder_device, dtype, loader)
        weights = sum(bytes_of(empty_transformer(files, name, dtype)) for name in components)
        weights += bytes_of(encoder) if options.text_encoder is TextEncoderPlace.DEVICE else 0
        streamed = must_stream(limit, weights)
        home = torch.device("cpu") if streamed else device
        transformers = tuple(load_transformer(files, name, home, dtype, loader) for name in components)
        vae = load_vae(files, device, vae_dtype, loader)
        loader.verify()
    placement = Placement(transformers, bytes_of(encoder), bytes_of(vae), device, options, limit)
    if streamed:
        placement.stream()
    return Model(
        variant=variant,
        device=device,
        text_encoder=TextEncoder(tokenizer, encoder, device, options),
        transformers=transformers,
        vae=vae,
        placement=placement,
    )


def _check_configs(variant: Variant, files: ModelFiles, transformers: tuple[str, ...]) -> None:
    """Raises FailedPrecondition when a config says something else than the variant."""
    text_dim = files.config("text_encoder").get("d_model")
    for component in transformers:
        config = read_transformer_config(files.config(component), component)
        _check(variant, component, "dim", config.dim, variant.dim)
        _check(variant, component, "num_layers", config.num_layers, variant.num_layers)
        _check(variant, component, "ffn_dim", config.ffn_dim, variant.ffn_dim)
        _check(variant, component, "in_channels", config.in_channels, variant.in_channels)
        _check(variant, component, "out_channels", config.out_channels, variant.latent_channels)
        _check(variant, component, "text_dim", config.text_dim, text_dim)
    vae = read_vae_config(files.config("vae"))
    _check(variant, "vae", "z_dim", vae.latent_channels, variant.latent_channels)
    _check(variant, "vae", "scale_factor_spatial", vae.spatial_stride, variant.spatial_stride)
    unused = [name for name in files.paths if name.startswith("transformer_2/") and variant.experts == 1]
    if unused:
        raise misfit(f"{unused[0]} belongs to a second expert, which {variant.name} does not have")


def _check(variant: Variant, component: str, name: str, value: object, expected: object) -> None:
    if value != expected:
        raise misfit(f"{component}/config.json says {name} is {value}, where {variant.name} has {expected}")
