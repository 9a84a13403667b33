"""What of a DiT adapters may add to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Size

from wan22_inference.engine.adaptable import Adaptable
from wan22_inference.engine.linear import Fp8Linear, Linear
from wan22_inference.engine.transformer import PatchEmbedding, Transformer

Layer = Linear | Fp8Linear | PatchEmbedding


@dataclass(frozen=True)
class Targets:
    """Names, with the shapes that adapters see."""

    layers: Mapping[str, tuple[int, int]]
    """Outputs and inputs of each matrix product."""
    vectors: Mapping[str, Size]
    """Parameters that are part of none."""


def layers_of(transformer: Transformer) -> dict[str, Layer]:
    """The matrix products, by name."""
    return {name: module for name, module in transformer.named_modules() if isinstance(module, Layer)}


def vectors_of(transformer: Transformer) -> dict[str, tuple[Adaptable, str]]:
    """The module of each other parameter, and its name there, by its whole name."""
    return {
        f"{name}.{leaf}": (module, leaf)
        for name, module in transformer.named_modules()
        if isinstance(module, Adaptable)
        for leaf, _ in module.named_parameters(recurse=False)
    }


def targets_of(transformer: Transformer) -> Targets:
    """Both; the same for all experts of a variant."""
    layers = {}
    for name, layer in layers_of(transformer).items():
        outputs, *inputs = layer.weight.shape
        layers[name] = (outputs, Size(inputs).numel())
    vectors = vectors_of(transformer)
    return Targets(layers, {name: getattr(module, leaf).shape for name, (module, leaf) in vectors.items()})
