"""Where the trained weights of the tiny family are; docs/tiny-models.md tells of them."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "weights"
JUDGE = FOLDER / "judge.safetensors"
VAE_21 = FOLDER / "vae21"
