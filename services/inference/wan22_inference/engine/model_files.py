"""A model version's files as the engine reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wan22.errors import FailedPrecondition, Reason
from wan22_inference.engine.loading.sources import SUFFIXES


@dataclass(frozen=True)
class ModelFiles:
    """A version's files: path within the model, such as `vae/config.json`, to a local file."""

    paths: Mapping[str, Path]

    def weights(self, component: str) -> list[str]:
        """The component's files of weights, sorted; refused when there is none."""
        names = sorted(name for name in self.paths if name.startswith(f"{component}/") and name.endswith(SUFFIXES))
        if not names:
            raise misfit(f"{component}/ has no .safetensors file")
        return names

    def config(self, component: str) -> dict[str, Any]:
        """The component's config.json."""
        return json.loads(self.read(f"{component}/config.json"))  # type: ignore[no-any-return]  # an object in all configs

    def read(self, name: str) -> bytes:
        """A small file's content."""
        return self.path(name).read_bytes()

    def path(self, name: str) -> Path:
        """A file that has to be there."""
        if name not in self.paths:
            raise misfit(f"{name} is missing")
        return self.paths[name]


def misfit(what: str) -> FailedPrecondition:
    """The error for a model that is not what its variant needs."""
    return FailedPrecondition(f"The model does not fit: {what}. Push a complete model.", reason=Reason.MODEL_MISFIT)
