"""`wan22 bench registry`, which also runs as `python -m wan22_bench.registry` from a path alone."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console

from wan22_bench.registry import gpu_goals, loading, packing
from wan22_bench.registry.model_weights import VAE_DIMS, make_weights, quantised, sync, write_weights
from wan22_bench.report import Report, Row, versions_of
from wan22_inference.engine.devices import choose_device
from wan22_inference.engine.loading.nvcomp import find_nvcomp

VERSIONS = ("torch", "triton", "zstandard", "safetensors", "fastsafetensors", "nvidia-libnvcomp-cu13")
SIZES = {"cuda": 8.4e9, "cpu": 2.1e9}
"""Bytes of weights in bfloat16: 12 blocks of A14B, and three."""


def measure(size: int, folder: Path, device: torch.device) -> Iterator[Row]:
    """All rows, from `size` bytes of weights; the folder gets three times as many."""
    plain, eight = folder / "weights.safetensors", folder / "eight.safetensors"
    packed = folder / "weights.safetensors.pack"
    weights = make_weights(size, device)
    write_weights(weights, plain)
    write_weights(quantised(weights), eight)
    del weights
    yield from packing.rows(plain, packed, eight)
    sync(packed)
    yield from loading.rows(plain, packed, device)


def describe(device: torch.device) -> str:
    """What it ran on."""
    cores = f"{len(os.sched_getaffinity(0))} cores"
    if device.type != "cuda":
        return cores
    decoder = "nvCOMP" if find_nvcomp() is not None else "no nvCOMP"
    return f"{torch.cuda.get_device_name(device)}, {cores}, {decoder}"


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="wan22 bench registry", description=__doc__)
    parser.add_argument("--size", type=float, help="bytes of weights in bfloat16 (8.4e9 on CUDA, 2.1e9 on a CPU)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--folder", type=Path, help="where to write, on the disk to measure; a temporary one if absent")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument(
        "--cold-start", choices=VAE_DIMS, metavar="VARIANT", help=f"start a process too, with {' or '.join(VAE_DIMS)}"
    )
    options = parser.parse_args(arguments)
    device = choose_device(options.device)
    size = int(options.size or SIZES[device.type])
    console = Console(width=180)
    command = f"wan22 bench registry --size {size:.4g}"
    command += f" --cold-start {options.cold_start}" if options.cold_start else ""
    rows: list[Row] = []
    report = Report(
        name="registry", device=describe(device), command=command, rows=rows, versions=versions_of(*VERSIONS)
    )
    try:
        for row in _all(options, size, device):
            rows.append(row)
            console.print(f"{row.id or '-'}: {row.what}: {row.value} {row.unit}, peer {row.peer}, floor {row.floor}")
            if options.json is not None:  # what was measured before somebody ends it took minutes
                report.write(options.json)
    finally:
        report.show(console)


def _all(options: argparse.Namespace, size: int, device: torch.device) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        yield from measure(size, Path(folder), device)
        if options.cold_start:
            from wan22_bench.registry import cold_start  # noqa: PLC0415  # the engine whole: av and Pillow too

            yield cold_start.row(options.cold_start, Path(folder), device)
    if device.type != "cuda":
        yield from gpu_goals.not_measured()
