"""Where the trained tiny family's weights lie, part by part; docs/tiny-models.md tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wan22.adapter import ADAPTER_FILE, WEIGHTS_FILE, Adapter

FOLDER = Path(__file__).parent / "weights"
JUDGE = FOLDER / "judge.safetensors"
VAE_21, VAE_22 = FOLDER / "vae21", FOLDER / "vae22"


def turbo_adapters(variant_name: str) -> Mapping[str, Mapping[str, Path]]:
    """Files by their names in a version, of each adapter of profile `turbo` that a variant has, by its model's name."""
    found = {}
    for folder in sorted((FOLDER / "turbo").glob("*")):
        files = {name: folder / name for name in (ADAPTER_FILE, WEIGHTS_FILE)}
        if Adapter.from_json(files[ADAPTER_FILE].read_bytes()).base_variant == variant_name:
            found[f"{variant_name}-turbo-{folder.name}"] = files
    return found
