"""The official repositories' layout (Wan-AI/Wan2.2-*), arranged as diffusers' is.

Source: wan/configs of Wan-Video/Wan2.2, which name the files. Transformers are safetensors there. Text encoder and VAE
are pickles without configurations, converted before they come here; their shapes tell what a configuration would.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from wan22.errors import InvalidRequest
from wan22.folder_files import forbidden
from wan22.official_configs import text_encoder_config, vae_config
from wan22.pack.malformed import MalformedFile
from wan22.pack.safetensors_header import read_header

HIGH, LOW = "high_noise_model", "low_noise_model"
_FOLDERS = {HIGH: "transformer", LOW: "transformer_2", "google/umt5-xxl": "tokenizer", ".": "transformer"}
_ROOT_NAMES = ("config.json", "diffusion_pytorch_model*")
"""Of the transformer of the variant with one expert; its folder is the root."""
_CONVERTED = {
    "models_t5_umt5-xxl-enc-bf16": "text_encoder/model.safetensors",
    "Wan2.1_VAE": "vae/diffusion_pytorch_model.safetensors",
    "Wan2.2_VAE": "vae/diffusion_pytorch_model.safetensors",
}
"""What is published as NAME.pth at the root, and converted to NAME.safetensors."""
_CONFIGS = {"text_encoder": text_encoder_config, "vae": vae_config}
_UNWANTED = ("assets", "examples")
"""Pictures and videos for the model's page."""


@dataclass(frozen=True)
class OfficialFiles:
    """The files under their paths in diffusers' layout, and configurations that there are no files of."""

    files: Mapping[str, Path]
    made: Mapping[str, bytes]


def is_one(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return not (folder / "model_index.json").exists() and any(
        (folder / path).is_file() for path in (f"{HIGH}/config.json", f"{LOW}/config.json", "config.json")
    )


def transformer_configs(folder: Path) -> tuple[Path, Path]:
    """Where the configurations of the first and the second expert lie; the second need not exist."""
    low = Path(LOW) / "config.json"
    return (Path("config.json") if (folder / "config.json").is_file() else Path(HIGH) / "config.json"), low


def is_unwanted(path: PurePath) -> bool:
    """Whether a file of such a folder is left out: what is for the model's page, and ModelScope's own file."""
    return path.parts[0] in _UNWANTED or path == PurePath("configuration.json")


def arrange(folder: Path, entering: Iterable[Path]) -> OfficialFiles:
    """Gives each file its place. Raises InvalidRequest naming a file that has none, or what is missing."""
    files: dict[str, Path] = {}
    for path in entering:
        target = _target(PurePosixPath(path.relative_to(folder).as_posix()))
        if target is None:
            raise forbidden(path, "is no part of the official repository's layout: remove it")
        if target in files:
            raise forbidden(path, f"is a second one beside {files[target].name}: keep one")
        files[target] = path
    made = {}
    for component, config in _CONFIGS.items():
        names = [name for name, target in _CONVERTED.items() if target.startswith(f"{component}/")]
        target = _CONVERTED[names[0]]
        if target not in files:
            text = f"{folder} has no {' or '.join(names)}: download the .pth file of that name, and convert it"
            raise InvalidRequest(f"{text} with `wan22 models convert-pth`.", field="folder")
        try:
            made[f"{component}/config.json"] = config(_shapes(files[target]))
        except MalformedFile as error:
            raise forbidden(files[target], f"is not what its name says: {error}") from error
    if "tokenizer/tokenizer.json" not in files:
        text = f"{folder} has no google/umt5-xxl/tokenizer.json: download the tokenizer too."
        raise InvalidRequest(text, field="folder")
    return OfficialFiles(files, made)


def _target(path: PurePosixPath) -> str | None:
    folder = str(path.parent)
    if folder == ".":
        if path.suffix == ".safetensors" and path.stem in _CONVERTED:
            return _CONVERTED[path.stem]
        if not any(fnmatch.fnmatchcase(path.name, pattern) for pattern in _ROOT_NAMES):
            return None
    return f"{_FOLDERS[folder]}/{path.name}" if folder in _FOLDERS else None


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    with path.open("rb") as file:
        return {tensor.name: tensor.shape for tensor in read_header(file, path.stat().st_size).tensors}
