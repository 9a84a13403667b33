"""`wan22 bench engine`, which also runs as `python -m wan22_bench.engine` from a path alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from rich.console import Console

from wan22_bench.engine import forwards
from wan22_bench.engine.kernel_times import kernel_times
from wan22_bench.report import Report, Row, versions_of
from wan22_testing.forwards import Work, free_memory, make_sides

VERSIONS = ("torch", "triton", "diffusers", "torchao", "fa3-fwd")
SUITES = {"h100": tuple(goal.id for goal in forwards.GOALS)}
"""Which rows a suite has."""


def run(ids: set[str], json: Path | None) -> None:
    """Measures the rows, shows each as it comes, and the table at the end; writes it to `json`."""
    device = torch.device("cuda:0")
    console = Console(width=180)
    rows: list[Row] = []
    for row in forwards.measure(ids, device):
        rows.append(row)
        console.print(f"{row.id or '-'}: {row.what}: {row.value} {row.unit}, peer {row.peer}, error {row.error}")
    command = f"wan22 bench engine --rows {','.join(sorted(ids))}"
    name = torch.cuda.get_device_name(device)
    report = Report(name="engine", device=name, command=command, rows=rows, versions=versions_of(*VERSIONS))
    report.show(console)
    if json is not None:
        report.write(json)


def profile(work: Work, *, fp8: bool) -> None:
    """Prints the device's time of one forward by kind of kernel."""
    device = torch.device("cuda:0")
    free_memory(device)
    times = kernel_times(make_sides(work, forwards.SEEDS[0], device).ours(torch.bfloat16, fp8=fp8))
    for kind, milliseconds in times.items():
        if milliseconds >= 0.05:
            sys.stdout.write(f"{milliseconds:10.2f} ms  {kind}\n")


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="wan22 bench engine", description=__doc__)
    parser.add_argument("--suite", choices=SUITES, default="h100", help="the rows of a card")
    parser.add_argument("--rows", help="only these, separated by commas: P1,P2 …")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument("--profile", action="store_true", help="show instead where the time of each forward goes")
    options = parser.parse_args(arguments)
    ids = set(options.rows.split(",")) if options.rows else set(SUITES[options.suite])
    unknown = ids - set(SUITES[options.suite])
    if unknown:
        parser.error(f"no such rows: {', '.join(sorted(unknown))}; there are {', '.join(SUITES[options.suite])}")
    if not torch.cuda.is_available():
        parser.error("this needs a CUDA device")
    if options.profile:
        for goal in forwards.GOALS:
            if goal.id in ids:
                sys.stdout.write(f"{goal.id}: {goal.work}, {'fp8' if goal.fp8 else 'bf16'}\n")
                profile(goal.work, fp8=goal.fp8)
        return
    run(ids, options.json)
