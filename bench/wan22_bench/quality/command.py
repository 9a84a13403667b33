"""`wan22 bench quality`, which also runs as `python -m wan22_bench.quality` from a path alone."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch
from rich.console import Console

from wan22_bench.quality import sheet
from wan22_bench.quality.goals import ROWS
from wan22_bench.quality.measurement import Measurement
from wan22_bench.quality.models import Models
from wan22_bench.quality.shooting import Shooting
from wan22_bench.quality.studio import Sampling
from wan22_bench.report import Report, Row, versions_of
from wan22_inference.engine.devices import choose_device, compute_dtype
from wan22_testing.trained import whole
from wan22_testing.trained_parts import FOLDER

VERSIONS = ("torch", "triton")
PROMPTS, CLIPS = 200, 1000
_TELL_SECONDS = 5.0


class Teller:
    """Says on stderr how far a row is, now and then, and at its end."""

    def __init__(self) -> None:
        self._said = 0.0

    def __call__(self, name: str, done: int, count: int, right: int) -> None:
        """Of so many, how many are done and right."""
        if done == count or time.monotonic() - self._said >= _TELL_SECONDS:
            self._said = time.monotonic()
            sys.stderr.write(f"{name}: {done} of {count}, {right} right\n")
            sys.stderr.flush()


def describe(device: torch.device) -> str:
    """What it ran on, and in which precision."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{len(os.sched_getaffinity(0))} cores"
    return f"{name}, {str(compute_dtype(device)).removeprefix('torch.')}"


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="wan22 bench quality", description=__doc__)
    parser.add_argument(
        "--models",
        type=Path,
        default=FOLDER,
        metavar="FOLDER",
        help="models in diffusers' format in folders named by variant, or their parts as training leaves them; "
        "judge.safetensors; turbo/high and turbo/low; wan22's own by default",
    )
    parser.add_argument("--rows", help=f"only these, separated by commas, of {','.join(ROWS)}")
    parser.add_argument("--prompts", type=_number, default=PROMPTS, help=f"to make videos of; {PROMPTS} by default")
    parser.add_argument("--clips", type=_number, default=CLIPS, help=f"true ones to read; {CLIPS} by default")
    parser.add_argument("--steps", type=_number, help="instead of the variants' own; not of turbo")
    parser.add_argument("--guidance", type=float, help="instead of the variants' own scales; not of turbo")
    parser.add_argument("--side", type=_number, help="width and height in pixels, instead of the variants' own")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--processes",
        type=_number,
        default=1,
        help="make the videos of so many rows at a time: tiny models leave a GPU waiting for the host",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="draw the first sixteen videos there")
    options = parser.parse_args(arguments)
    names = options.rows.split(",") if options.rows else list(ROWS)
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        parser.error(f"no such rows: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    if not options.models.is_dir():
        parser.error(f"{options.models} is no folder")
    with whole(options.models) as folder:
        _measure(options, names, folder)


def _measure(options: argparse.Namespace, names: list[str], folder: Path) -> None:
    device = choose_device(options.device)
    sampling = Sampling(steps=options.steps, guidance=options.guidance, side=options.side)
    shooting = Shooting(Models(folder, device), sampling, options.prompts, Teller())
    measurement = Measurement(shooting, options.clips)
    rows = list[Row]()
    for row in measurement.rows(names, options.processes):
        rows.append(row)
        sys.stderr.write(f"{row.id}: {row.what}: {row.value} {row.unit}\n")
    report = Report(
        name="quality",
        device=describe(device),
        command=_command(options),
        rows=rows,
        versions=versions_of(*VERSIONS),
        tables=measurement.figures(),
    )
    report.show(Console(width=180))
    if options.json is not None:
        report.write(options.json)
    shots = measurement.shots()
    if options.sheet is not None and shots:
        sheet.write(shots, options.sheet)


def _command(options: argparse.Namespace) -> str:
    """What was asked for, without the places of files."""
    asked = {name: getattr(options, name) for name in ("rows", "prompts", "clips", "steps", "guidance", "side")}
    return " ".join(["wan22 bench quality", *(f"--{name} {value}" for name, value in asked.items() if value)])


def _number(text: str) -> int:
    """At least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"is {value}: use 1 or more")
    return value
