"""From the start of a process to the first denoise step, the model in the page cache.

The second start on a machine is told: the first leaves Python's bytecode, which a worker's image has, and Triton's
kernels, which a node's cache has.
"""

from __future__ import annotations

import json
import os
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
    """Makes a model, 32 GB of packs for t2v-a14b, and measures a start after one that is not told."""
    with tempfile.TemporaryDirectory(dir=folder) as name, tempfile.TemporaryDirectory() as bytecode:
        for path in make_folder(Path(name), variant, device).values():
            remember(path)
        _start(name, variant, device, bytecode)
        taken = _start(name, variant, device, bytecode)
    parts = ", ".join(f"{seconds:.2f} s to {part}" for part, seconds in taken.items())
    full = variant == "t2v-a14b" and device.type == "cuda"
    return Row(
        id="P9c" if full else None,
        what=f"{gpu_goals.COLD_START.replace('t2v-a14b', variant)} ({parts})",
        value=taken["the first step"],
        unit="s",
        goal=gpu_goals.P9C if full else None,
    )


def _start(model: str, variant: str, device: torch.device, bytecode: str) -> dict[str, float]:
    """Seconds to each part of one start, which takes bytecode from a folder and leaves there what it lacks."""
    environment = os.environ | {"PYTHONPYCACHEPREFIX": bytecode}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "wan22_bench.registry.cold_process", model, variant, str(device)]
    begun = str(time.monotonic())
    result = subprocess.run([*command, begun], check=False, capture_output=True, text=True, env=environment)
    if result.returncode:
        raise RuntimeError(f"the process to be measured failed: {result.stderr}")
    taken: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return taken
