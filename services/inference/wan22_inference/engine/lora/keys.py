"""The names of tensors in LoRA files, in each of the styles that are about, and what in a DiT each belongs to.

Sources: PEFT; diffusers (loaders/lora_conversion_utils.py); LightX2V (tools/extract/lora_extractor.py); kohya-ss's
musubi-tuner.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from wan22_inference.engine.checkpoint_names import checkpoint_names


class Part(Enum):
    """What a tensor is to the layer or parameter that it belongs to."""

    DOWN = auto()
    """(rank, in)."""
    UP = auto()
    """(out, rank)."""
    UP_BIAS = auto()
    """(out,), scaled as the product of the two."""
    ALPHA = auto()
    """A number; the product is scaled by it over the rank."""
    WEIGHT = auto()
    """Added to the weight."""
    BIAS = auto()
    """Added to the bias."""
    MODULATION = auto()
    """Added to the modulation."""


_SUFFIXES: Mapping[str, Part] = {
    ".lora_A.weight": Part.DOWN,
    ".lora_B.weight": Part.UP,
    ".lora_B.bias": Part.UP_BIAS,
    ".lora_A.default.weight": Part.DOWN,
    ".lora_B.default.weight": Part.UP,
    ".lora_B.default.bias": Part.UP_BIAS,
    ".lora_down.weight": Part.DOWN,
    ".lora_up.weight": Part.UP,
    ".lora.down.weight": Part.DOWN,
    ".lora.up.weight": Part.UP,
    ".alpha": Part.ALPHA,
    ".diff": Part.WEIGHT,
    ".diff_b": Part.BIAS,
    ".diff_m": Part.MODULATION,
}
_KINDS: Mapping[str, str] = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "oft_": "OFT",
    "boft_": "BOFT",
    "vera_": "VeRA",
    "lora_mid": "LoCon of rank-reduced convolutions",
    "lora_embedding_": "LoRA of an embedding",
}
"""Parts of the names that other kinds of adapters use."""
_PREFIXES = (
    "base_model.model.",
    "pipe.dit.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer_2.",
    "transformer.",
    "lora_unet_",
)
SECOND = "transformer_2."
"""What diffusers puts before the names of the low-noise expert's in a file of both experts."""


@dataclass(frozen=True)
class Key:
    """A tensor's name, taken apart."""

    base: str
    """The layer's name in a style of the file's, without prefix."""
    part: Part
    second: bool
    """Whether it is said to be the low-noise expert's."""


def parse(name: str) -> Key | None:
    """None for a name that no style has."""
    second = False
    for prefix in _PREFIXES:  # in this order, each at most once: PEFT puts its own before any other
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            second = second or prefix == SECOND
    for suffix, part in _SUFFIXES.items():
        if name.endswith(suffix):
            return Key(name.removesuffix(suffix), part, second)
    return None


def other_kind(name: str) -> str | None:
    """The kind of adapter that uses such a name, if it is one that is known and not LoRA."""
    return next((kind for part, kind in _KINDS.items() if part in name), None)


class TargetNames:
    """Finds a DiT's layers and parameters under the names that files give them."""

    def __init__(self, layers: Iterable[str], vectors: Iterable[str]) -> None:
        """`layers` are names of modules, `vectors` of parameters, as engine/transformer.py has them."""
        self._layers = {style: layer for layer in layers for style in _styles(layer)}
        self._vectors = {style: vector for vector in vectors for style in _styles(vector)}

    def layer(self, base: str) -> str | None:
        """The layer that a low-rank product belongs to; None where there is none of that name."""
        return self._layers.get(base)

    def parameter(self, key: Key) -> str | None:
        """The parameter that a sum belongs to; None where there is none of that name."""
        leaf = {Part.WEIGHT: "weight", Part.BIAS: "bias", Part.MODULATION: "modulation"}[key.part]
        layer = self._layers.get(key.base)
        if layer is not None:
            return f"{layer}.{leaf}" if key.part is not Part.MODULATION else None
        return self._vectors.get(f"{key.base}.{leaf}")


def _styles(name: str) -> set[str]:
    """A name in diffusers' style, the official one, and both as kohya flattens them."""
    plain = set(checkpoint_names(name))
    return plain | {style.replace(".", "_") for style in plain}
