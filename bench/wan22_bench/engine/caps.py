"""Generations under a limit of the device's memory, with fp8 weights, beside the same without one."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image

from wan22.parameters import Parameters
from wan22.variants import VARIANTS
from wan22_bench.engine.desktop import Timed, figures
from wan22_bench.engine.device_memory import DeviceMemory
from wan22_bench.engine.generations import WARMING_STEPS, forwards_of, parameters_of, time_generation
from wan22_bench.engine.scale import GIGABYTE, Scale, vae_config
from wan22_bench.report import Figures, Row
from wan22_inference.engine.options import EngineOptions
from wan22_testing.forwards import Work, free_memory
from wan22_testing.random_model import make_model
from wan22_testing.sizes import UMT5_TINY

STEPS = 4
MOST = 1.2
"""The time under a limit over the time without one."""
_MEDIA = "media/" + "0" * 64


def rows(ids: set[str], scale: Scale, device: torch.device) -> Iterator[Row | Figures]:
    """The rows of these ids, the worst of their ratios, and what a desktop card would take."""
    ratios: list[tuple[float, str]] = []
    timed: list[Timed] = []
    for cap in scale.caps:
        if cap.id not in ids:
            continue
        free, _ = _time(cap.work, scale, device, None)
        try:
            limited, peak = _time(cap.work, scale, device, cap.limit)
        finally:
            if device.type == "cuda":
                torch.cuda.set_per_process_memory_fraction(1.0, device)
        gigabytes = cap.limit / GIGABYTE
        what = f"{STEPS} steps of {cap.work}, fp8, in {gigabytes:g} GB, a small text encoder"
        yield Row(
            id=cap.id,
            what=f"{what}: the device's peak by NVML" + ("" if device.type == "cuda" else ", which a CPU has not"),
            value=None if peak is None else peak / GIGABYTE,
            unit="GB",
            goal=None if scale.dry else gigabytes,
            peak_bytes=peak,
        )
        yield Row(id=None, what=f"denoising of {what}; peer: without a limit", value=limited, unit="s", peer=free)
        ratios.append((limited / free, what))
        timed.append(Timed(str(cap.work), gigabytes, cap.asked, limited / forwards_of(_asked(cap.work)[0])))
    if ratios:
        worst, what = max(ratios)
        goal = None if scale.dry else MOST
        yield Row(
            id="P11", what=f"the worst time over the same without limit: {what}", value=worst, unit="1", goal=goal
        )
        yield figures(timed)


def _time(work: Work, scale: Scale, device: torch.device, limit: int | None) -> tuple[float, int | None]:
    """Seconds of denoising under a limit of bytes, and the device's peak."""
    free_memory(device)
    options = EngineOptions(text_encoder=scale.text_encoder_under_caps, vram_limit=limit)
    model = make_model(work, UMT5_TINY, vae_config(scale, work.variant), device, options, fp8=True)
    parameters, images = _asked(work)
    with DeviceMemory(device) as memory:
        time_generation(model, _asked(work, WARMING_STEPS)[0], images)
        seconds = time_generation(model, parameters, images).denoising
    return seconds, memory.peak


def _asked(work: Work, steps: int = STEPS) -> tuple[Parameters, dict[str, bytes]]:
    if VARIANTS[work.variant].image != "required":
        return parameters_of(work, steps), {}
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    png = io.BytesIO()
    Image.fromarray(pixels).resize((work.width, work.height)).save(png, "PNG")
    return parameters_of(work, steps, image=_MEDIA), {_MEDIA: png.getvalue()}
