"""A whole generation at full size with random weights: text encoder, both experts, VAE, MP4; tiny on a CPU."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from wan22.parameters import Parameters, RequestedParameters, resolve
from wan22.variants import VARIANTS
from wan22_inference.engine.generate import Run, generate
from wan22_inference.engine.model import Model
from wan22_inference.engine.progress import Progress, Stage
from wan22_testing.forwards import Work, free_memory, peak_bytes
from wan22_testing.random_model import make_model, make_vae
from wan22_testing.sizes import UMT5_TINY, UMT5_XXL

Figures = list[dict[str, Any]]
MEDIA = "media/" + "0" * 64
FULL_STEPS = 40


def parameters_of(work: Work, num_steps: int) -> Parameters:
    image = MEDIA if VARIANTS[work.variant].image == "required" else None
    requested = RequestedParameters(
        prompt="a cat on a beach",
        width=work.width,
        height=work.height,
        num_frames=work.num_frames,
        num_inference_steps=num_steps,
        seed=7,
        image=image,
    )
    size = (work.width, work.height) if image else None
    return resolve(VARIANTS[work.variant], requested, image_size=size, draw_seed=lambda: 0)


def picture(work: Work) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    png = io.BytesIO()
    Image.fromarray(pixels).resize((work.width, work.height)).save(png, "PNG")
    return png.getvalue()


def measure(model: Model, work: Work, num_steps: int, path: Path) -> dict[str, Any]:
    """A row of figures: seconds from the prompt to the MP4, with those of each stage."""
    free_memory(model.device)
    moments: dict[str, float] = {}

    def report(progress: Progress) -> None:
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        moments.setdefault(progress.stage.name, time.perf_counter())

    began = time.perf_counter()
    images = {MEDIA: picture(work)} if model.variant.image == "required" else {}
    generate(model, parameters_of(work, num_steps), images, path, Run(report=report, should_stop=lambda: False))
    ended = time.perf_counter()
    decoding = moments[Stage.DECODING.name]
    return {
        "what": f"a whole generation, {work}, {num_steps} steps with guidance, prompt to MP4",
        "unit": "s",
        "value": ended - began,
        "denoising_seconds": decoding - moments[Stage.DENOISING.name],
        "decoding_seconds": ended - decoding,
        "peak_bytes": peak_bytes(model.device),
    }


def check_video(path: Path, work: Work) -> None:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert (len(frames), frames[0].width, frames[0].height) == (work.num_frames, work.width, work.height)
    assert np.stack([frame.to_ndarray(format="rgb24") for frame in frames[::20]]).std() > 5.0


@pytest.mark.gpu
@pytest.mark.parametrize("variant", ["t2v-a14b", "i2v-a14b"])
def test_a_whole_generation_fits_and_plays(variant: str, cuda: torch.device, figures: Figures, tmp_path: Path) -> None:
    work = Work(variant, 40, 832, 480, 81)
    model = make_model(work, UMT5_XXL, {}, cuda)
    row = measure(model, work, FULL_STEPS, tmp_path / "out.mp4")
    figures.append(row | {"id": "P3b", "goal": 193.0, "floor": 187.0} if variant == "t2v-a14b" else row)
    check_video(tmp_path / "out.mp4", work)


@pytest.mark.parametrize("variant", ["t2v-a14b-tiny", "i2v-a14b-tiny"])
def test_a_whole_generation_is_measured_alike_at_tiny_sizes(variant: str, tmp_path: Path) -> None:
    work = Work(variant, 1, 64, 64, 5)
    model = make_model(work, UMT5_TINY, {"base_dim": 4}, torch.device("cpu"))
    row = measure(model, work, 2, tmp_path / "out.mp4")
    assert row["value"] >= row["denoising_seconds"] + row["decoding_seconds"] > 0.0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len(list(container.decode(video=0))) == 5


def test_every_parameter_of_the_random_vae_is_set() -> None:
    vae: nn.Module = make_vae({"base_dim": 4}, torch.device("cpu"))
    assert all(bool(torch.isfinite(parameter).all()) for parameter in vae.parameters())
