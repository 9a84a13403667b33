"""The trained models in a folder, and the engine's own way to load them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from wan22.adapter import ADAPTER_FILE, WEIGHTS_FILE, Adapter
from wan22.errors import FailedPrecondition
from wan22.loras import Expert, RequestedLora
from wan22.model_folder import read_model_folder
from wan22.names import VersionName
from wan22.pack.conversion import Form
from wan22.pack.layout import PACKED_SUFFIX
from wan22.pack.safetensors_header import StoredTensor
from wan22.pack.writer import pack_file
from wan22.precision import is_quantised
from wan22.variants import VARIANTS, Variant
from wan22_inference.engine.components import empty_vae, fill_vae
from wan22_inference.engine.devices import compute_dtype
from wan22_inference.engine.loading.loader import WeightLoader
from wan22_inference.engine.lora.adapter import LoraAdapter, read_adapter
from wan22_inference.engine.lora.targets import targets_of
from wan22_inference.engine.model import Model
from wan22_inference.engine.model_files import ModelFiles
from wan22_inference.engine.model_load import load_model
from wan22_inference.engine.options import EngineOptions
from wan22_inference.engine.vae.vae import Vae
from wan22_testing.shapes.judge import Judge

JUDGE_FILE = "judge.safetensors"
TURBO = {"high": Expert.HIGH, "low": Expert.LOW}
"""Folders of adapters within turbo/, and whose they are."""


class NotMeasured(Exception):
    """Why a row has no figure."""


@dataclass(frozen=True)
class Turbo:
    """The adapters of profile `turbo`, as a request names them and in memory."""

    loras: tuple[RequestedLora, ...]
    adapters: Mapping[str, LoraAdapter]


@dataclass(frozen=True)
class Models:
    """A folder of models by variant in diffusers' format, VAEs, a judge, and adapters; each may be missing."""

    folder: Path
    device: torch.device

    def judge(self) -> Judge:
        """On the device. Raises NotMeasured where there is none."""
        return Judge.load(self._there(JUDGE_FILE)).to(self.device)

    def model(self, variant: str, options: EngineOptions, packed: Path | None = None) -> Model:
        """Loaded as a worker loads it. Raises NotMeasured where it is missing or of other sizes.

        With an empty folder `packed` it is imported in float8 first, into there.
        """
        files = self._files(variant)
        if packed is not None:
            files = import_in_float8(VARIANTS[variant], files, packed)
        try:
            return load_model(VARIANTS[variant], files, self.device, lambda _: None, options)
        except FailedPrecondition as error:
            raise NotMeasured(error.message) from error

    def vae(self, name: str, variant: str) -> Vae:
        """A VAE alone, of the folder of that name or of a variant, decoding in the device's dtype.

        Raises NotMeasured where there is neither.
        """
        alone = self.folder / name
        own = {f"vae/{path.name}": path for path in alone.iterdir()} if alone.is_dir() else None
        files = ModelFiles(self._files(variant) if own is None else own)
        vae = empty_vae(files, compute_dtype(self.device))
        with WeightLoader(lambda _: None) as loader:
            fill_vae(vae, files, self.device, loader)
        return vae

    def turbo(self, model: Model) -> Turbo:
        """The adapters for both experts of a model. Raises NotMeasured where one is missing."""
        loras, adapters = [], {}
        for name, expert in TURBO.items():
            folder = self._there(f"turbo/{name}")
            file = folder / WEIGHTS_FILE
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            version = str(VersionName(f"turbo-{name}", f"sha256:{digest}"))
            facts = Adapter.from_json((folder / ADAPTER_FILE).read_bytes())
            targets = targets_of(model.transformers[0])
            adapters[version] = read_adapter(file, targets, model.variant.experts, facts.alpha)
            loras.append(RequestedLora(adapter=version, expert=expert))
        return Turbo(tuple(loras), adapters)

    def _files(self, variant: str) -> Mapping[str, Path]:
        return read_model_folder(self._there(variant)).files

    def _there(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            raise NotMeasured(f"{name} is not there")
        return path


def import_in_float8(variant: Variant, files: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """A model's files, its weights packed into the folder as `wan22 models import --precision fp8` packs them."""
    found: dict[str, Path] = {}
    for name, path in files.items():
        if path.suffix != ".safetensors":
            found[name] = path
            continue

        def choose(tensor: StoredTensor, name: str = name) -> Form:
            return Form.FLOAT8 if is_quantised(variant, name, tensor.name) else Form.AS_IS

        target = folder / f"{len(found)}{PACKED_SUFFIX}"
        pack_file(path, target, lambda _: None, choose)
        found[name.removesuffix(".safetensors") + PACKED_SUFFIX] = target
    return found
