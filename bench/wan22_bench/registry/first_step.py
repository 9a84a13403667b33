"""A generation up to its first denoise step, of a model that is loaded for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from wan22.errors import Cancelled
from wan22.parameters import RequestedParameters, resolve
from wan22.variants import VARIANTS
from wan22_inference.engine.generate import Run, generate
from wan22_inference.engine.model_load import ModelLoad
from wan22_inference.engine.progress import Progress, Stage
from wan22_testing.model_paths import model_paths


def first_step(folder: Path, variant_name: str, device: torch.device, reached: Callable[[str], object]) -> None:
    """Loads the model of a folder and denoises one step; `reached` is told of each part, of some again and again."""
    variant = VARIANTS[variant_name]
    width, height, num_frames = (64, 64, 5) if variant.small else (832, 480, 81)
    requested = RequestedParameters(prompt="a cat on a beach", width=width, height=height, num_frames=num_frames)
    parameters = resolve(variant, requested, image_size=None, draw_seed=lambda: 1)
    paths = model_paths(folder)
    text_encoder = sum(path.stat().st_size for name, path in paths.items() if name.startswith("text_encoder/model"))
    loaded, is_done = 0, False

    def count(more: int) -> None:
        nonlocal loaded
        loaded += more
        reached("the first weights")
        if loaded >= text_encoder:
            reached("the text encoder")

    def report(progress: Progress) -> None:
        nonlocal is_done
        if progress.stage is not Stage.DENOISING:
            return
        reached("the first step's end" if progress.step else "the first step")
        is_done = bool(progress.step)

    with ModelLoad(variant, paths, device, count) as load:
        model = load.begin()
        reached("what it needs of the model")
        try:
            generate(model, parameters, {}, folder / "video.mp4", Run(report=report, should_stop=lambda: is_done))
        except Cancelled:
            return
    raise RuntimeError("the generation ended before its first step was told")
