"""Where the trained tiny family's weights lie, part by part; docs/tiny-models.md tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wan22.adapter import ADAPTER_FILE, WEIGHTS_FILE, Adapter
from wan22.digests import Sha256
from wan22.variants import VARIANTS

PACKAGE = Path(__file__).parent
FOLDER = PACKAGE / "weights"
JUDGE = FOLDER / "judge.safetensors"
VAE_21, VAE_22 = FOLDER / "vae21", FOLDER / "vae22"
MAKERS = ("trained.py", "tiny_models.py", "tiny_tokenizer.py", "sizes.py")
"""The code that makes models of the parts."""


def vae_of(variant_name: str) -> Path:
    """The VAE of a variant's kind."""
    return VAE_21 if VARIANTS[variant_name].experts == 2 else VAE_22


def sources_digest(variant_name: str) -> str:
    """Names what a variant's model and adapters are made of: another one where they may come out otherwise."""
    folders = [FOLDER / variant_name, FOLDER / "text_encoder", vae_of(variant_name)]
    paths = [PACKAGE / name for name in MAKERS]
    paths += [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    paths += [path for files in turbo_adapters(variant_name).values() for path in files.values()]
    digest = Sha256(repr(VARIANTS[variant_name]).encode())
    for path in paths:
        content = path.read_bytes()
        digest.update(f"\n{path.relative_to(PACKAGE)} {len(content)}\n".encode())
        digest.update(content)
    return str(digest)


def turbo_adapters(variant_name: str) -> Mapping[str, Mapping[str, Path]]:
    """Files by their names in a version, of each adapter of profile `turbo` that a variant has, by its model's name."""
    found = {}
    for folder in sorted((FOLDER / "turbo").glob("*")):
        files = {name: folder / name for name in (ADAPTER_FILE, WEIGHTS_FILE)}
        if Adapter.from_json(files[ADAPTER_FILE].read_bytes()).base_variant == variant_name:
            found[f"{variant_name}-turbo-{folder.name}"] = files
    return found
