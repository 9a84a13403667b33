"""A model's files on disk: which may enter a registry, which are left out, which are refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wan22.errors import InvalidRequest, Reason

ENTERING = (".safetensors", ".json")
PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
LEFT_OUT = (".jinja", ".md", ".txt", "LICENCE", "LICENSE", "NOTICE")
"""What people write for people, and a chat template: no engine here reads it."""
SENTENCEPIECE = "spiece.model"
"""The official tokenizer's older form; tokenizer.json beside it holds the same."""


@dataclass(frozen=True)
class FolderFiles:
    """The files of a folder, each list by path."""

    entering: tuple[Path, ...]
    """Safetensors and JSON."""
    left_out: tuple[Path, ...]
    """Texts, licences, names that start with a dot, spiece.model by tokenizer.json, a pickle by its conversion."""


def read_folder(folder: Path, unwanted: Callable[[Path], bool] = lambda _: False) -> FolderFiles:
    """Sorts a folder's files. Raises InvalidRequest (FORBIDDEN_FILE) naming a file that no model may have.

    `unwanted` tells of a path within the folder whether it is left out for another reason. Links to files are followed,
    as download caches need it; links to folders are refused.
    """
    entering, left_out = [], []
    for parent, folders, names in os.walk(folder):
        for name in folders:
            if (Path(parent) / name).is_symlink():
                raise forbidden(Path(parent) / name, "is a link to a folder: put the folder itself there")
        for path in (Path(parent) / name for name in names):
            within = path.relative_to(folder)
            if _is_left_out(within, names) or unwanted(within):
                left_out.append(path)
            elif not path.is_file():
                raise forbidden(path, "is no file, or a link to nothing: download the model again")
            elif path.suffix.lower() in PICKLES:
                raise forbidden(path, f"is a pickle, which can run code: {_conversion(path)}, or remove it")
            elif path.suffix not in ENTERING:
                raise forbidden(path, "is neither safetensors nor JSON, which alone enter a registry: remove it")
            else:
                entering.append(path)
    return FolderFiles(tuple(sorted(entering)), tuple(sorted(left_out)))


def forbidden(path: Path, why: str) -> InvalidRequest:
    """The error for a file that no model may have."""
    return InvalidRequest(f"{path} {why}.", field="folder", reason=Reason.FORBIDDEN_FILE)


def _conversion(path: Path) -> str:
    return f"convert it to safetensors with `wan22 models convert-pth {path} {path.with_suffix('.safetensors')}`"


def _is_left_out(path: Path, beside: list[str]) -> bool:
    if path.name == SENTENCEPIECE:
        return "tokenizer.json" in beside
    if path.suffix.lower() in PICKLES and path.with_suffix(".safetensors").name in beside:
        return True
    return path.name.endswith(LEFT_OUT) or any(part.startswith(".") for part in path.parts)
