"""Small random LoRA files for the tiny variants, in each style that files come in."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from wan22_testing.sizes import random_variant

GAIN = 0.5
"""Size of what a product adds over the size of what the layer itself makes, about."""


class Style(Enum):
    """Who writes files so."""

    DIFFUSERS = auto()
    PEFT = auto()
    LIGHTX2V = auto()
    KOHYA = auto()


@dataclass(frozen=True)
class RandomLora:
    """Products beside all matrices of a tiny variant's blocks, drawn from a seed and each layer's name."""

    variant: str
    rank: int = 4
    alpha: float = 2.0
    seed: int = 0

    def products(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Down (rank, in) and up (out, rank) of each layer, by its official name."""
        variant = random_variant(self.variant)
        dim, ffn = variant.dim, variant.ffn_dim
        shapes = {f"{kind}_attn.{part}": (dim, dim) for kind in ("self", "cross") for part in "qkvo"}
        shapes |= {"ffn.0": (ffn, dim), "ffn.2": (dim, ffn)}
        return {
            name: (
                self.noise(f"{name}.down", self.rank, inputs) / math.sqrt(inputs),
                self.noise(f"{name}.up", outputs, self.rank) * (GAIN * math.sqrt(self.rank) / self.alpha),
            )
            for block in range(variant.num_layers)
            for layer, (outputs, inputs) in shapes.items()
            for name in [f"blocks.{block}.{layer}"]
        }

    def noise(self, name: str, *shape: int) -> Tensor:
        """Unit noise of its own for each name."""
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        return torch.randn(shape, generator=torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1))

    def tensors(self, style: Style) -> dict[str, Tensor]:
        """The tensors of a file. PEFT's and diffusers' keep alpha elsewhere."""
        found: dict[str, Tensor] = {}
        for official, (down, up) in self.products().items():
            prefix, name, parts = _name(official, style)
            found |= {f"{prefix}{name}.{parts[0]}.weight": down, f"{prefix}{name}.{parts[1]}.weight": up}
            if style in {Style.LIGHTX2V, Style.KOHYA}:
                found[f"{prefix}{name}.alpha"] = torch.tensor(self.alpha)
        return found

    def metadata(self, style: Style) -> dict[str, str]:
        """What the file's header says beside its tensors."""
        if style is not Style.DIFFUSERS:
            return {"format": "pt"}
        config = {"r": self.rank, "lora_alpha": self.alpha, "target_modules": sorted(self._diffusers_names())}
        told = {f"transformer.{key}": value for key, value in config.items()}
        return {"format": "pt", "lora_adapter_metadata": json.dumps(told)}

    def write(self, path: Path, style: Style = Style.LIGHTX2V) -> Path:
        """Writes a file, and returns its path."""
        save_file(self.tensors(style), path, self.metadata(style))
        return path

    def _diffusers_names(self) -> set[str]:
        return {diffusers_name(official) for official in self.products()}


def diffusers_name(official: str) -> str:
    """Diffusers' name of a layer of a block."""
    block, number, layer = official.split(".", 2)
    if layer.startswith("ffn"):
        return f"{block}.{number}.{layer.replace('ffn.0', 'ffn.net.0.proj').replace('ffn.2', 'ffn.net.2')}"
    attention, part = layer.split(".")
    which = {"self_attn": "attn1", "cross_attn": "attn2"}[attention]
    return f"{block}.{number}.{which}.{'to_out.0' if part == 'o' else f'to_{part}'}"


def _name(official: str, style: Style) -> tuple[str, str, tuple[str, str]]:
    """Prefix, name and parts' names of a layer in a style."""
    if style is Style.DIFFUSERS:
        return "transformer.", diffusers_name(official), ("lora_A", "lora_B")
    if style is Style.PEFT:
        return "base_model.model.", diffusers_name(official), ("lora_A", "lora_B")
    if style is Style.KOHYA:
        return "lora_unet_", official.replace(".", "_"), ("lora_down", "lora_up")
    return "diffusion_model.", official, ("lora_down", "lora_up")
