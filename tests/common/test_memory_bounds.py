"""Imports and conversions of files that are far larger than what their process may take of memory."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from tests.registry import model_folder

from wan22_testing.service_process import ServiceProcess

MIB = 1 << 20
IMPORT_BOUND = 256 * MIB
"""Of a whole process: 90 for the command and its libraries, two cores' rooms for extents, a step of hashing."""
CONVERSION_BOUND = 64 * MIB
"""Beside the process with a file of some bytes, which is mostly torch."""
PROGRAM = """
import os, re, runpy, sys
from pathlib import Path
os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:2])  # what is held grows with the cores
module, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(f"peak {int(peak) * 1024}", file=sys.stderr)
"""


def peak_of(module: str, arguments: Sequence[str], **environment: str) -> int:
    """Bytes that a module took of memory at most, run to its end in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, module, *arguments]
    result = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, **environment}, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return int(result.stderr.rsplit("peak ", 1)[1])


def write_sparse(path: Path, tensors: Mapping[str, tuple[str, Sequence[int], int]]) -> int:
    """A safetensors file of zeros, which take no room on the disk: name -> dtype, shape, bytes of an item."""
    header, end = {}, 0
    for name, (dtype, shape, item) in tensors.items():
        begin, end = end, end + torch.Size(shape).numel() * item
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    raw = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
    return path.stat().st_size


@pytest_asyncio.fixture
async def registry(tmp_path: Path) -> AsyncIterator[ServiceProcess]:
    process = ServiceProcess("wan22_registry", tmp_path / "log", root=tmp_path / "root")
    process.start()
    await process.until()
    yield process
    process.kill()


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
async def test_an_import_takes_little_memory_however_large_the_files(
    registry: ServiceProcess, tmp_path: Path, precision: str
) -> None:
    folder = model_folder.write(tmp_path / "model")
    size = write_sparse(
        folder / "transformer" / "diffusion_pytorch_model.safetensors",
        {
            "blocks.0.attn1.to_q.weight": ("F32", (13_824, 5_120), 4),
            "blocks.0.attn1.to_k.weight": ("BF16", (13_824, 5_120), 2),
            "proj_out.weight": ("F32", (4_096, 5_120), 4),
            "ids": ("I64", (8 * MIB,), 8),  # stored as it is: 64 MiB to push
        },
    )
    assert size > 2 * IMPORT_BOUND
    arguments = ["models", "import", str(folder), "--variant", "ti2v-5b", "--precision", precision, "--model", "m"]
    peak = peak_of("wan22_cli", [*arguments, "--registry", registry.address], WAN22_HOME=str(tmp_path / "home"))
    assert peak < IMPORT_BOUND


def test_a_conversion_takes_little_memory_however_large_the_file(tmp_path: Path) -> None:
    peaks = []
    for name, rows in (("small", 1), ("large", 96)):
        source, target = tmp_path / f"{name}.pth", tmp_path / f"{name}.safetensors"
        torch.save({f"blocks.{n}.weight": torch.full((rows, MIB), n, dtype=torch.bfloat16) for n in range(2)}, source)
        peaks.append(peak_of("wan22.pickle_conversion", [str(source), str(target)]))
    assert target.stat().st_size > 6 * CONVERSION_BOUND
    assert peaks[1] - peaks[0] < CONVERSION_BOUND
