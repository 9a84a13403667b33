"""A model's way into memory, in the order in which a generation needs it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from wan22.errors import InternalError, Wan22Error
from wan22.variants import Variant
from wan22_inference.engine.arrivals import Arrivals
from wan22_inference.engine.components import (
    begin_tokenizer,
    check_tokenizer,
    empty_text_encoder,
    empty_transformer,
    empty_vae,
    fill_text_encoder,
    fill_transformer,
    fill_vae,
)
from wan22_inference.engine.devices import compute_dtype
from wan22_inference.engine.loading.loader import OnBytes, WeightLoader
from wan22_inference.engine.model import TRANSFORMERS, VAE, Model
from wan22_inference.engine.model_files import ModelFiles, misfit
from wan22_inference.engine.options import EngineOptions, TextEncoderPlace
from wan22_inference.engine.placement import Placement, bytes_of, device_limit, must_stream
from wan22_inference.engine.text import TextEncoder
from wan22_inference.engine.text_encoder_config import read_text_encoder_config
from wan22_inference.engine.transformer_config import read_transformer_config
from wan22_inference.engine.vae.config import read_vae_config
from wan22_inference.engine.warm_up import warm_up

VERIFIED = "verified"
"""The last to arrive: that all weights have their digests. No video is finished before."""


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
    with ModelLoad(variant, paths, device, on_bytes, options) as load:
        model = load.begin()
        load.finish()
    return model


class ModelLoad:
    """Loads what the first denoise step needs, then the rest while the model runs; use as a context manager.

    The order is: text encoder, the VAE where it encodes an image before all else, high-noise expert; then low-noise
    expert, VAE. Where experts are streamed from host memory, which moves them, all comes first.
    """

    def __init__(
        self,
        variant: Variant,
        paths: Mapping[str, Path],
        device: torch.device,
        on_bytes: OnBytes,
        options: EngineOptions | None = None,
    ) -> None:
        self._variant = variant
        self._files = ModelFiles(paths)
        self._device = device
        self._options = options or EngineOptions()
        self._loader = WeightLoader(on_bytes)
        self._arrivals = Arrivals()
        self._rest: list[tuple[str, partial[None]]] = []

    def __enter__(self) -> Self:
        self._loader.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loader.__exit__(kind, error, trace)

    def begin(self) -> Model:
        """The model as soon as it can denoise; what is still missing is told by its arrivals. Raises as load_model."""
        files, device, options, loader = self._files, self._device, self._options, self._loader
        components = TRANSFORMERS[: self._variant.experts]
        variant = _sized(self._variant, files) if self._variant.small else self._variant
        _check_configs(variant, files, components)
        dtype = compute_dtype(device)
        tokenizer = begin_tokenizer(files)
        limit = device_limit(device, options)
        encoder_device = device if options.text_encoder is TextEncoderPlace.DEVICE else torch.device("cpu")
        encoder = empty_text_encoder(files, dtype)
        transformers = tuple(
            empty_transformer(files, name, dtype, attention8=options.attention8) for name in components
        )
        vae_dtype = dtype if options.vae_decode_dtype == "auto" else getattr(torch, options.vae_decode_dtype)
        vae = empty_vae(files, vae_dtype)
        weights = sum(map(bytes_of, transformers))
        weights += bytes_of(encoder) if options.text_encoder is TextEncoderPlace.DEVICE else 0
        streamed = must_stream(limit, weights)
        home = torch.device("cpu") if streamed else device
        placement = Placement(transformers, bytes_of(encoder), bytes_of(vae), device, options, limit)

        experts = [
            (name, partial(fill_transformer, module, files, name, home, loader))
            for name, module in zip(components, transformers, strict=True)
        ]
        decoder = (VAE, partial(fill_vae, vae, files, device, loader))
        parts = [decoder, *experts] if variant.image == "required" else [*experts, decoder]
        first = len(parts) if streamed else parts.index(experts[0]) + 1
        fill_text_encoder(encoder, files, encoder_device, loader)
        text_encoder = TextEncoder(tokenizer, encoder, device, options)
        with ThreadPoolExecutor(1, "warm-up") as pool:
            warming = pool.submit(warm_up, device, text_encoder, transformers[0])
            for _, fill in parts[:first]:
                fill()
            if streamed:
                placement.stream()
        check_tokenizer(tokenizer)
        warming.result()
        self._rest = parts[first:]
        if not self._rest:
            loader.release_lanes()
        self._arrivals = Arrivals([name for name, _ in self._rest] + [VERIFIED], loader.scratch_bytes)
        return Model(
            variant=variant,
            device=device,
            text_encoder=text_encoder,
            transformers=transformers,
            vae=vae,
            placement=placement,
            arrivals=self._arrivals,
            shortcuts=options.shortcuts,
        )

    def finish(self) -> None:
        """Loads the rest in any thread, and verifies. Raises as load_model does; the arrivals then fail too."""
        try:
            for name, fill in self._rest:
                fill()
                self._arrivals.arrive(name)
            self._loader.release_lanes()  # before the last arrival: who waits for all has the device to itself then
            self._loader.verify()
            self._arrivals.arrive(VERIFIED)
        except Wan22Error as error:
            self._arrivals.fail(error)
            raise
        except BaseException as error:
            self._arrivals.fail(InternalError(f"Loading failed by a fault of ours ({type(error).__name__}: {error})."))
            raise


def _sized(variant: Variant, files: ModelFiles) -> Variant:
    """A small variant with the sizes of its first expert and its VAE."""
    config = read_transformer_config(files.config(TRANSFORMERS[0]), TRANSFORMERS[0])
    channels = read_vae_config(files.config(VAE)).latent_channels
    return variant.sized(dim=config.dim, num_layers=config.num_layers, ffn_dim=config.ffn_dim, latent_channels=channels)


def _check_configs(variant: Variant, files: ModelFiles, transformers: tuple[str, ...]) -> None:
    """Raises FailedPrecondition when a config says something else than the variant."""
    text_dim = read_text_encoder_config(files.config("text_encoder")).dim
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
