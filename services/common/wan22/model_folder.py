"""A model on disk, in either layout: what enters a registry, and which variant it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wan22 import official_folder
from wan22.errors import InvalidRequest
from wan22.folder_files import read_folder
from wan22.variants import VARIANTS, Variant

MAX_SMALL_DIM = 512
"""No published model's DiT is this narrow."""


@dataclass(frozen=True)
class ModelFolder:
    """The files of a model, under the paths that they have in a registry: those of diffusers' layout."""

    files: Mapping[str, Path]
    """What enters a registry: safetensors and JSON."""
    made: Mapping[str, bytes] = field(default_factory=dict)
    """Configurations that the folder does not have as files."""
    left_out: tuple[Path, ...] = ()
    """What does not and is not missed."""


def read_model_folder(folder: Path) -> ModelFolder:
    """Sorts a model folder's files. Raises InvalidRequest (FORBIDDEN_FILE) naming a file that no model may have."""
    if official_folder.is_one(folder):
        found = read_folder(folder, official_folder.is_unwanted)
        official = official_folder.arrange(folder, found.entering)
        return ModelFolder(official.files, official.made, found.left_out)
    if not (folder / "model_index.json").is_file():
        text = f"{folder} is no model folder: it has neither model_index.json, as diffusers' format has, nor the"
        raise InvalidRequest(f"{text} configurations of the official repository's transformers.", field="folder")
    found = read_folder(folder)
    files = {path.relative_to(folder).as_posix(): path for path in found.entering}
    return ModelFolder(files, left_out=found.left_out)


def infer_variant(folder: Path) -> str:
    """The variant whose dimensions the folder's transformer has. Raises InvalidRequest saying to pass --variant."""
    first, second = Path("transformer") / "config.json", Path("transformer_2") / "config.json"
    if official_folder.is_one(folder):
        first, second = official_folder.transformer_configs(folder)
    config = _read_config(folder / first)
    experts = 2 if (folder / second).exists() else 1
    found = _dimensions(config)
    for variant in VARIANTS.values():
        if (experts, found) == (variant.experts, _dimensions_of(variant)):
            return variant.name
    for variant in VARIANTS.values():
        if variant.small and _is_of(variant, experts, found):
            return variant.name
    text = ", ".join(f"{name} {value}" for name, value in found.items())
    raise _unknown(f"{folder} has {experts} transformer(s) with {text}, which is no variant's")


def _dimensions(config: dict[str, Any]) -> dict[str, object]:
    dim, in_channels = config.get("dim"), config.get("in_dim")  # the official repository's names
    if dim is None:
        heads, head_dim = config.get("num_attention_heads"), config.get("attention_head_dim")
        dim = heads * head_dim if isinstance(heads, int) and isinstance(head_dim, int) else None
        in_channels = config.get("in_channels")
    return {"dim": dim, "in_channels": in_channels, **{name: config.get(name) for name in ("num_layers", "ffn_dim")}}


def _is_of(variant: Variant, experts: int, found: dict[str, object]) -> bool:
    """Whether these can be the sizes of a model of a small variant, which are its own."""
    dim, in_channels = found["dim"], found["in_channels"]
    if experts != variant.experts or not isinstance(dim, int) or dim > MAX_SMALL_DIM:
        return False
    of_two = {other.in_channels for other in VARIANTS.values() if other.experts == 2}
    return in_channels == variant.in_channels or (experts == 1 and in_channels not in of_two)


def _dimensions_of(variant: Variant) -> dict[str, object]:
    return {name: getattr(variant, name) for name in ("dim", "in_channels", "num_layers", "ffn_dim")}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise _unknown(f"{path} is not there") from None
    except ValueError as error:
        raise _unknown(f"{path} is not JSON ({error})") from None
    if not isinstance(config, dict):
        raise _unknown(f"{path} is no JSON object")
    return config


def _unknown(why: str) -> InvalidRequest:
    text = f"The variant is not known: {why}. Pass --variant, one of {', '.join(VARIANTS)}."
    return InvalidRequest(text, field="variant")
