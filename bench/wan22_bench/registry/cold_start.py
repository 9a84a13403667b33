"""From the start of a process to the first denoise step, the model in the page cache; the process is this module.

`python -m wan22_bench.registry.cold_start FOLDER VARIANT DEVICE START` prints how long each part took, as JSON. START
is the monotonic clock's time when the process was asked for.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from wan22.errors import Cancelled
from wan22.parameters import RequestedParameters, resolve
from wan22.variants import VARIANTS
from wan22_bench.registry import gpu_goals
from wan22_bench.registry.model_weights import remember
from wan22_bench.report import Row
from wan22_inference.engine.generate import Run, generate
from wan22_inference.engine.model_load import ModelLoad
from wan22_inference.engine.progress import Progress, Stage

IMPORTED = time.monotonic()


def row(variant: str, folder: Path | None, device: torch.device) -> Row:
    """Makes a model, 32 GB of packs for t2v-a14b, and measures one start."""
    from wan22_bench.registry.random_folder import make_folder  # noqa: PLC0415  # not for what is measured

    with tempfile.TemporaryDirectory(dir=folder) as name:
        for path in make_folder(Path(name), variant, device).values():
            remember(path)
        command = [sys.executable, "-m", "wan22_bench.registry.cold_start", name, variant, str(device)]
        result = subprocess.run([*command, str(time.monotonic())], check=False, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(f"the process to be measured failed: {result.stderr}")
        taken = json.loads(result.stdout.splitlines()[-1])
    parts = ", ".join(f"{seconds:.2f} s to {part}" for part, seconds in taken.items())
    full = variant == "t2v-a14b" and device.type == "cuda"
    return Row(
        id="P9c" if full else None,
        what=f"{gpu_goals.COLD_START.replace('t2v-a14b', variant)} ({parts})",
        value=taken["the first step"],
        unit="s",
        goal=gpu_goals.P9C if full else None,
    )


def main() -> None:
    """The process that is measured."""
    folder, name, device, start = Path(sys.argv[1]), sys.argv[2], torch.device(sys.argv[3]), float(sys.argv[4])
    taken = {"its imports": IMPORTED - start}
    variant = VARIANTS[name]
    width, height, num_frames = (64, 64, 5) if variant.small else (832, 480, 81)
    requested = RequestedParameters(prompt="a cat on a beach", width=width, height=height, num_frames=num_frames)
    parameters = resolve(variant, requested, image_size=None, draw_seed=lambda: 1)
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}

    def report(progress: Progress) -> None:
        if progress.stage is Stage.DENOISING:
            taken.setdefault("the first step", time.monotonic() - start)

    with ModelLoad(variant, paths, device, lambda _: None) as load:
        model = load.begin()
        taken["what it needs of the model"] = time.monotonic() - start
        run = Run(report=report, should_stop=lambda: "the first step" in taken)
        try:
            generate(model, parameters, {}, folder / "video.mp4", run)
        except Cancelled:
            sys.stdout.write(json.dumps(taken) + "\n")


if __name__ == "__main__":
    main()
