"""A model as diffusers lays it out on disk: which of its files enter a registry, and which variant it is."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wan22.errors import InvalidRequest, Reason
from wan22.variants import VARIANTS, Variant

ENTERING = (".safetensors", ".json")
PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
LEFT_OUT = (".jinja", ".md", ".txt", "LICENCE", "LICENSE", "NOTICE")
"""What people write for people, and a chat template: no engine here reads it."""
SENTENCEPIECE = "spiece.model"
"""The official tokenizer's older form; tokenizer.json beside it holds the same."""


@dataclass(frozen=True)
class ModelFolder:
    """The files of a model folder, each list by path."""

    files: tuple[Path, ...]
    """What enters a registry: safetensors and JSON."""
    left_out: tuple[Path, ...]
    """What does not and is not missed: texts, licences, names that start with a dot, spiece.model by tokenizer.json."""


def read_model_folder(folder: Path) -> ModelFolder:
    """Sorts the files of a model folder. Raises InvalidRequest (FORBIDDEN_FILE) naming a file that no model may have.

    Links to files are followed, as download caches need it; links to folders are refused.
    """
    if not (folder / "model_index.json").is_file():
        text = f"{folder} is no model folder in diffusers' format: it has no model_index.json."
        raise InvalidRequest(text, field="folder")
    files, left_out = [], []
    for parent, folders, names in os.walk(folder):
        for name in folders:
            if (Path(parent) / name).is_symlink():
                raise _forbidden(Path(parent) / name, "is a link to a folder: put the folder itself there")
        for path in (Path(parent) / name for name in names):
            if _is_left_out(path.relative_to(folder), names):
                left_out.append(path)
            elif not path.is_file():
                raise _forbidden(path, "is no file, or a link to nothing: download the model again")
            elif path.suffix.lower() in PICKLES:
                raise _forbidden(path, "is a pickle, which can run code: convert it to safetensors, or remove it")
            elif path.suffix not in ENTERING:
                raise _forbidden(path, "is neither safetensors nor JSON, which alone enter a registry: remove it")
            else:
                files.append(path)
    return ModelFolder(tuple(sorted(files)), tuple(sorted(left_out)))


def _is_left_out(path: Path, beside: list[str]) -> bool:
    if path.name == SENTENCEPIECE:
        return "tokenizer.json" in beside
    return path.name.endswith(LEFT_OUT) or any(part.startswith(".") for part in path.parts)


def infer_variant(folder: Path) -> str:
    """The variant whose dimensions the folder's transformer has. Raises InvalidRequest saying to pass --variant."""
    config = _read_config(folder / "transformer" / "config.json")
    experts = 2 if (folder / "transformer_2" / "config.json").exists() else 1
    found = _dimensions(config)
    for variant in VARIANTS.values():
        if (experts, found) == (variant.experts, _dimensions_of(variant)):
            return variant.name
    text = ", ".join(f"{name} {value}" for name, value in found.items())
    raise _unknown(f"{folder} has {experts} transformer(s) with {text}, which is no variant's")


def _dimensions(config: dict[str, Any]) -> dict[str, object]:
    heads, head_dim = config.get("num_attention_heads"), config.get("attention_head_dim")
    dim = heads * head_dim if isinstance(heads, int) and isinstance(head_dim, int) else None
    return {"dim": dim, **{name: config.get(name) for name in ("in_channels", "num_layers", "ffn_dim")}}


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


def _forbidden(path: Path, why: str) -> InvalidRequest:
    return InvalidRequest(f"{path} {why}.", field="folder", reason=Reason.FORBIDDEN_FILE)
