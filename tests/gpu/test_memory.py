"""Predicted against measured memory at full size, and generations under limits."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from wan22.economy import EMPTY, Economy
from wan22.memory_model import economise, predict
from wan22.parameters import Parameters, RequestedParameters, resolve
from wan22.variants import VARIANTS
from wan22_inference.engine.generate import Run, generate
from wan22_inference.engine.model import Model
from wan22_inference.engine.options import EngineOptions, TextEncoderPlace
from wan22_inference.engine.placement import device_overhead
from wan22_inference.engine.progress import Progress, Stage
from wan22_testing.forwards import Work, free_memory
from wan22_testing.random_model import make_model
from wan22_testing.sizes import UMT5_TINY, UMT5_XXL, VAE_22

Figures = list[dict[str, Any]]
TILED = Economy(decode_tile=16, feed_forward_chunk=4096)
VAES: dict[str, dict[str, Any]] = {
    "t2v-a14b": {"base_dim": 96},
    "ti2v-5b": VAE_22 | {"base_dim": 160, "decoder_base_dim": 256},
}


def parameters_of(work: Work) -> Parameters:
    requested = RequestedParameters(
        prompt="a cat on a beach",
        width=work.width,
        height=work.height,
        num_frames=work.num_frames,
        num_inference_steps=2,
        boundary=0.9 if work.variant == "t2v-a14b" else None,
        seed=7,
    )
    return resolve(VARIANTS[work.variant], requested, image_size=None, draw_seed=lambda: 0)


def run(model: Model, work: Work, path: Path, economy: Economy = EMPTY) -> tuple[dict[str, int], float]:
    """Peak bytes of the device by phase, contexts and libraries counted, and seconds of denoising."""
    free_memory(model.device)
    peaks: dict[str, int] = {}
    phases = {Stage.ENCODING_TEXT: "text", Stage.DENOISING: "denoise", Stage.DECODING: "decode"}
    now = ["text"]
    times: list[float] = []
    holdings = model.placement.holdings()
    assert holdings is not None

    def end_phase() -> None:
        torch.cuda.synchronize()
        peaks[now[0]] = torch.cuda.max_memory_allocated() + holdings.overhead
        torch.cuda.reset_peak_memory_stats()

    def report(progress: Progress) -> None:
        if progress.economy is None and phases[progress.stage] != now[0]:
            end_phase()
            now[0] = phases[progress.stage]
        if progress.step is not None:
            torch.cuda.synchronize()
            times.append(time.perf_counter())

    generate(model, parameters_of(work), {}, path, Run(report=report, should_stop=lambda: False, economy=economy))
    end_phase()
    return peaks, times[-1] - times[0]


@pytest.fixture
def unlimited(cuda: torch.device) -> Iterator[None]:
    yield
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.0, cuda)


@pytest.mark.gpu
@pytest.mark.usefixtures("unlimited")
@pytest.mark.parametrize(
    "runs",
    [
        [
            (Work("t2v-a14b", 40, 832, 480, 81), EMPTY),
            (Work("t2v-a14b", 40, 832, 480, 81), TILED),
            (Work("t2v-a14b", 40, 1280, 720, 81), TILED),
        ],
        [
            (Work("ti2v-5b", 30, 1280, 704, 121), EMPTY),
            (Work("ti2v-5b", 30, 1280, 704, 121), TILED),
            (Work("ti2v-5b", 30, 832, 480, 49), EMPTY),
        ],
    ],
    ids=["t2v-a14b", "ti2v-5b"],
)
def test_the_memory_model_is_within_a_tenth(
    runs: list[tuple[Work, Economy]], cuda: torch.device, figures: Figures, tmp_path: Path
) -> None:
    """Weights and activations together."""
    model = make_model(runs[0][0], UMT5_XXL, VAES[runs[0][0].variant], cuda)
    off = {}
    for work, economy in runs:
        holdings = model.placement.holdings()
        assert holdings is not None
        predicted = predict(model.variant, parameters_of(work), holdings, economy)
        measured, _ = run(model, work, tmp_path / "v.mp4", economy)
        for phase, peak in measured.items():
            what = f"{phase}, {work}, {economy.entries() or 'whole'}"
            off[what] = predicted.phases[phase] / peak
            sizes = f"predicted {predicted.phases[phase] / 2**30:.2f} GiB, measured {peak / 2**30:.2f} GiB"
            sys.stdout.write(f"{what}: {sizes}\n")
    worst = max(off.values(), key=lambda ratio: abs(ratio - 1))
    what = f"predicted over measured peak memory, {model.variant.name}, the worst of {len(off)}"
    figures.append({"what": what, "unit": "1", "value": worst, "goal": 1.1})
    assert all(0.9 <= ratio <= 1.1 for ratio in off.values()), off


@pytest.mark.gpu
@pytest.mark.usefixtures("unlimited")
@pytest.mark.parametrize(
    ("work", "gib"),
    [(Work("t2v-a14b", 40, 512, 512, 81), 12), (Work("ti2v-5b", 30, 832, 480, 49), 8)],
    ids=["t2v-a14b in 12 GB", "ti2v-5b in 8 GB"],
)
def test_a_generation_fits_under_a_limit_with_the_same_bits(
    work: Work, gib: int, cuda: torch.device, figures: Figures, tmp_path: Path
) -> None:
    """In fp8, blocks streamed. The text encoder is on the CPU, hence a small one: it takes no part in this."""
    limit = gib * 10**9
    unbounded = EngineOptions(text_encoder=TextEncoderPlace.CPU)
    model = make_model(work, UMT5_TINY, VAES[work.variant], cuda, unbounded, fp8=True)
    run(model, work, tmp_path / "first.mp4")  # kernels are loaded, some compiled
    _, free_time = run(model, work, tmp_path / "free.mp4")
    del model
    free_memory(cuda)
    options = EngineOptions(text_encoder=TextEncoderPlace.CPU, vram_limit=limit)
    model = make_model(work, UMT5_TINY, VAES[work.variant], cuda, options, fp8=True)
    holdings = model.placement.holdings()
    assert holdings is not None
    economy, prediction = economise(model.variant, parameters_of(work), holdings, EMPTY)
    assert prediction.fits, prediction
    _, limited_time = run(model, work, tmp_path / "limited.mp4", economy)
    peak = torch.cuda.max_memory_reserved(cuda) + device_overhead(cuda)
    what = (
        f"two steps of {work} in {gib} GB, fp8, {prediction.resident_blocks} blocks stay, over the same without limit"
    )
    figures.append({"what": what, "unit": "1", "value": limited_time / free_time, "goal": 1.2, "peak_bytes": peak})
    sys.stdout.write(f"{what}: {limited_time / free_time:.3f}, {economy.entries()}, peak {peak / 1e9:.2f} GB\n")
    assert peak <= limit
    if economy == EMPTY:
        assert (tmp_path / "limited.mp4").read_bytes() == (tmp_path / "free.mp4").read_bytes()


@pytest.mark.gpu
@pytest.mark.usefixtures("unlimited")
def test_a_real_out_of_memory_goes_down_the_ladder(cuda: torch.device, tmp_path: Path) -> None:
    work = Work("ti2v-5b", 4, 1280, 704, 25)
    model = make_model(work, {**UMT5_XXL, "num_layers": 1}, VAES["ti2v-5b"], cuda)
    steps: list[Economy] = []

    def report(progress: Progress) -> None:
        if progress.economy is not None:
            steps.append(progress.economy)
        if progress.stage is Stage.DECODING and not steps:
            held = torch.cuda.memory_allocated() + 3 * 2**30  # less than whole frames take
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(held / torch.cuda.mem_get_info()[1])

    run_with = Run(report=report, should_stop=lambda: False)
    economy = generate(model, parameters_of(work), {}, tmp_path / "v.mp4", run_with)
    assert economy.decode_tile is not None
    assert steps[-1] == economy
    torch.cuda.set_per_process_memory_fraction(1.0)
    assert generate(model, parameters_of(work), {}, tmp_path / "again.mp4", run_with) == EMPTY
