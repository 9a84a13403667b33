"""From the start of a process to the first denoise step, the model in the page cache."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from wan22_bench.registry import gpu_goals
from wan22_bench.registry.model_weights import remember
from wan22_bench.registry.random_folder import make_folder
from wan22_bench.report import Row


def row(variant: str, folder: Path | None, device: torch.device) -> Row:
    """Makes a model, 32 GB of packs for t2v-a14b, and measures one start."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        for path in make_folder(Path(name), variant, device).values():
            remember(path)
        command = [sys.executable, "-m", "wan22_bench.registry.cold_process", name, variant, str(device)]
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
