"""Whole models of any size with random weights, made on the device that runs them."""

from __future__ import annotations

from typing import Any

import torch

from wan22.tokenizer.local import LocalTokenizer
from wan22_inference.engine.devices import compute_dtype
from wan22_inference.engine.model import Model
from wan22_inference.engine.options import EngineOptions, TextEncoderPlace
from wan22_inference.engine.placement import Placement, bytes_of, device_limit, must_stream
from wan22_inference.engine.text import TextEncoder
from wan22_inference.engine.text_encoder_config import read_text_encoder_config
from wan22_inference.engine.text_encoder_model import TextEncoderModel
from wan22_inference.engine.vae.config import read_vae_config
from wan22_inference.engine.vae.vae import Vae
from wan22_testing import tiny_tokenizer
from wan22_testing.forwards import Work, free_memory, random_transformer
from wan22_testing.sizes import random_variant


def make_text_encoder(sizes: dict[str, int], device: torch.device) -> TextEncoderModel:
    """UMT5's encoder with noise of unit gain for matrices, the same each time."""
    with torch.device("meta"):
        encoder = TextEncoderModel(read_text_encoder_config(sizes)).to(compute_dtype(device))
    encoder.to_empty(device=device).requires_grad_(requires_grad=False)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in encoder.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0)
        else:
            is_table = name == "embedding.weight" or name.endswith("position_bias.weight")
            gain = 1.0 if is_table else parameter.shape[1] ** -0.5
            parameter.normal_(0.0, gain, generator=generator)
    return encoder


def make_vae(config: dict[str, Any], device: torch.device) -> Vae:
    """A VAE with noise of unit gain for weights."""
    with torch.device("meta"):
        vae = Vae(read_vae_config(config), compute_dtype(device))
    vae.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(1)
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if parameter.ndim > 2 and parameter.shape[1] > 1:
                noise = torch.randn(parameter.shape, generator=generator, device=device)
                parameter.copy_(noise / parameter.shape[1:].numel() ** 0.5)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    vae.to_channels_last()
    vae.requires_grad_(requires_grad=False)
    return vae


def make_model(
    work: Work,
    text: dict[str, int],
    vae: dict[str, Any],
    device: torch.device,
    options: EngineOptions | None = None,
    *,
    fp8: bool = False,
) -> Model:
    """A whole model, placed as load_model does it."""
    options = options or EngineOptions()
    variant = random_variant(work.variant)
    encoder = make_text_encoder(text, device)
    if options.text_encoder is not TextEncoderPlace.DEVICE:
        encoder.to("cpu")
    bounded = options.vram_limit is not None
    home = torch.device("cpu") if bounded else device  # made beyond the limit, in the pieces of larger tensors
    transformers = tuple(
        random_transformer(work, seed, device, fp8=fp8, attention8=options.attention8).to(home)
        for seed in range(variant.experts)
    )
    decoder = make_vae(vae, device).to(home)
    free_memory(device)
    weights = sum(map(bytes_of, transformers))
    stays = options.text_encoder is TextEncoderPlace.DEVICE
    encoded = TextEncoder(LocalTokenizer(tiny_tokenizer.build()), encoder, device, options)
    limit = device_limit(device, options)
    decoder.to(device)
    placement = Placement(transformers, bytes_of(encoder), bytes_of(decoder), device, options, limit)
    if must_stream(limit, weights + (bytes_of(encoder) if stays else 0)):
        placement.stream()
    for transformer in () if placement.streamed else transformers:
        transformer.to(device)
    return Model(
        variant=variant,
        device=device,
        text_encoder=encoded,
        transformers=transformers,
        vae=decoder,
        placement=placement,
        shortcuts=options.shortcuts,
    )
