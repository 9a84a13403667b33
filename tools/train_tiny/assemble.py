"""Puts trained parts together as model folders, which `wan22 models import` and diffusers take."""

from __future__ import annotations

import shutil

from tools.train_tiny.run import Run

from wan22.variants import VARIANTS
from wan22_testing.tiny_models import TINY_VARIANTS, write_frame


def assemble(run: Run) -> None:
    """Into DIR/models/VARIANT, of each variant whose experts are there."""
    for name in TINY_VARIANTS:
        trained, folder = run.out / name, run.out / "models" / name
        if not trained.exists():
            continue
        shutil.rmtree(folder, ignore_errors=True)
        write_frame(VARIANTS[name], folder)
        shutil.copytree(run.out / ("vae21" if VARIANTS[name].latent_channels == 16 else "vae22"), folder / "vae")
        shutil.copytree(run.out / "text_encoder", folder / "text_encoder")
        for expert in trained.iterdir():
            shutil.copytree(expert, folder / expert.name)
        size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
        run.say(f"{folder}, {size / 1e6:.1f} MB of weights")
