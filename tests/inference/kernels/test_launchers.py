"""What launches the kernels, built beforehand: all that Triton can ask for is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import types
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import driver
from wan22_inference.engine.kernels import launchers, merge_planes
from wan22_inference.engine.kernels.__main__ import KERNELS
from wan22_inference.engine.kernels.add_norm import add_norm
from wan22_inference.engine.kernels.centre_heads import centre_heads
from wan22_inference.engine.kernels.norm_rotate import norm_rotate, norm_rotate8
from wan22_inference.engine.kernels.norm_silu import norm_silu
from wan22_inference.engine.kernels.quantise_rows import quantise_rows
from wan22_inference.engine.rope import Rotary

built = {text for _, text in launchers.programs(KERNELS)}
launched = []

def launcher(source, metadata):
    text = driver.make_launcher({}, source.signature, None)
    assert text in built, source.signature
    launched.append(source.fn.__name__)
    return lambda *arguments: None

# A card that takes every kernel and runs none.
utils = types.SimpleNamespace(
    get_device_properties=lambda device: {"max_shared_mem": 1 << 18},
    load_binary=lambda *arguments: (0, 0, 0, 0, 1024),
)
card = types.SimpleNamespace(
    get_current_device=lambda: 0,
    get_current_stream=lambda device: 0,
    get_current_target=lambda: GPUTarget("cuda", 90, 32),
    launcher_cls=launcher,
    utils=utils,
)
triton.runtime.driver.set_active(card)

DIM, HEADS = 128, 2
rows = torch.zeros(3, DIM)
for batch, length in ((1, 1), (1, 64), (2, 7)):
    x = torch.zeros(batch, length, DIM, dtype=torch.bfloat16)
    lengths = (1, length - 1) if length > 1 else (1,)
    for fp8 in (False, True):
        add_norm(x, x, rows, rows, rows, lengths, 1e-6, fp8=fp8)
        add_norm(x, None, None, rows, rows, lengths, 1.0, fp8=fp8)
    angles = torch.zeros(length, DIM // HEADS // 2)
    norm_rotate(x, rows[0], HEADS, 1e-6, None)
    norm_rotate(x, rows[0], HEADS, 1e-6, Rotary(angles, angles))
    means, scales = torch.zeros(batch, DIM), torch.ones(batch, HEADS)
    norm_rotate8(x, rows[0], 1e-6, Rotary(angles, angles), None, scales)
    norm_rotate8(x, rows[0], 1e-6, Rotary(angles, angles), means, scales)
    centre_heads(x, means, scales)
    frames = torch.zeros(batch, DIM, 2, 3, length).to(memory_format=torch.channels_last_3d)
    norm_silu(frames, rows[0], 1e-24, torch.empty_like(frames))
    quantise_rows(x, None, gelu=True)
    quantise_rows(x, means, gelu=False)
for word in (1, 2, 4):
    merge_planes.launch(torch.zeros(2, 5, dtype=torch.int64), 5000, word)
print(*(f"{name}:{launched.count(name)}" for name in sorted(set(launched))))
"""
BUILD = """
import sys
from pathlib import Path
from triton import knobs
from wan22.errors import FailedPrecondition
from wan22_inference.engine.kernels import launchers
from wan22_inference.engine.kernels.__main__ import KERNELS

folder, source = Path(sys.argv[1]), Path(sys.argv[2])
first, second, *_ = launchers.programs(KERNELS)
launchers.build(folder, [first])
launchers.FOLDER = folder
launchers.use()
source.write_text(first[1])
print(Path(knobs.build.impl(first[0], str(source), "", [], [], [])).read_bytes()[:4])
source.write_text(second[1])
try:
    knobs.build.impl(second[0], str(source), "", [], [], [])
except FailedPrecondition as error:
    print(error.message)
"""


def said(program: str, folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(folder / "triton")
    command = [sys.executable, "-c", program, *arguments]
    result = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_program_launches_each_kernel_and_a_new_size_compiles_none(tmp_path: Path) -> None:
    assert said(RUN, tmp_path).split() == [
        "_add_norm:4",
        "_centre_heads:1",
        "_merge_planes:3",
        "_norm_rotate:4",
        "_norm_silu:1",
        "_quantise_rows:2",
    ]  # no more for three sizes than for one


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_triton_takes_a_program_from_the_folder_and_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    lines = said(BUILD, tmp_path, str(tmp_path / "built"), str(tmp_path / "program.c")).splitlines()
    assert lines[0] == repr(b"\x7fELF")
    assert lines[1].startswith("__triton_launcher as Triton ")
    assert lines[1].endswith("or remove it where there is a C compiler.")
