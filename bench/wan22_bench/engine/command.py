"""`wan22 bench engine`, which also runs as `python -m wan22_bench.engine` from a path alone."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console

from wan22_bench.engine import candidates, decodes, forwards, generation_goals
from wan22_bench.engine.kernel_times import kernel_times
from wan22_bench.engine.scale import DRY, H100, Scale
from wan22_bench.report import Figures, Report, Row, versions_of
from wan22_testing.forwards import free_memory, seconds

VERSIONS = ("torch", "triton", "diffusers", "torchao", "fa3-fwd")
_FORWARDS = (*(goal.id for goal in forwards.GOALS), *(goal.id for goal in decodes.GOALS))
_GENERATIONS = generation_goals.IDS
SUITES = {
    "h100": (*_FORWARDS, *_GENERATIONS),
    "h100-forwards": _FORWARDS,
    "h100-generations": _GENERATIONS,
}
"""Which rows a suite has: all, or either half, each of which is meant to fit ten minutes."""


def measure(
    ids: set[str], scale: Scale, device: torch.device, *, whole: bool, errors_too: bool = True
) -> Iterator[Row | Figures]:
    """The rows of these ids, in order of what shares weights."""
    timed = forwards.Forwards(scale, device)
    yield from timed.rows(ids, errors_too=errors_too)
    yield from decodes.rows(ids, scale, device)
    if not ids & set(_GENERATIONS):
        return
    from wan22_bench.engine import caps, generations  # noqa: PLC0415  # imports what forwards can do without

    yield from generations.rows(ids, scale, device, timed, whole=whole)
    yield from caps.rows(ids, scale, device)


def measure_candidates(device: torch.device, *, dry: bool) -> Iterator[Row]:
    """A row for each other way."""
    return candidates.rows(device, candidates.TINY if dry else candidates.Sizes())


def run(found: Iterator[Row | Figures], device: torch.device, json: Path | None, *, dry: bool, command: str) -> None:
    """Shows each row as it comes, and the tables at the end; writes all to `json` after each row."""
    console, began = Console(width=180), time.monotonic()
    name = "cpu, a dry run: sizes are tiny, and no figure means anything" if dry else torch.cuda.get_device_name(device)
    rows: list[Row] = []
    tables: list[Figures] = []
    report = Report(
        name="engine", device=name, command=command, rows=rows, versions=versions_of(*VERSIONS), tables=tables
    )
    for each in found:
        if isinstance(each, Figures):
            tables.append(each)
        else:
            rows.append(each)
            console.print(
                f"{time.monotonic() - began:.0f} s, {each.id or '-'}: {each.what}: {each.value} {each.unit}, "
                f"peer {each.peer}, error {each.error}"
            )
        if json is not None:  # what was measured is kept when the time is up
            report.write(json)
    report.show(console)


def profile(ids: set[str]) -> None:
    """Prints the device's time of the forwards among the rows by kind of kernel, and what is between kernels."""
    device = torch.device("cuda:0")
    timed = forwards.Forwards(H100, device)
    for goal in forwards.GOALS:
        if goal.id not in ids:
            continue
        sys.stdout.write(f"{goal.id}: {timed.work(goal)}, {goal.mode.value}\n")
        free_memory(device)
        forward = timed.ours(goal)
        alone = 1000.0 * seconds(forward, device)
        times = kernel_times(forward)
        sys.stdout.write(f"{alone:10.2f} ms  as the row is timed\n")
        sys.stdout.write(f"{times.whole:10.2f} ms  by the trace, {times.count} kernels\n")
        sys.stdout.write(f"{times.idle:10.2f} ms  of these between kernels\n")
        for kind, milliseconds in times.by_kind.items():
            if milliseconds >= 0.05:
                sys.stdout.write(f"{milliseconds:10.2f} ms  {kind}\n")


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="wan22 bench engine", description=__doc__)
    parser.add_argument("--suite", choices=SUITES, default="h100", help="the rows of a card, or half of them")
    parser.add_argument("--rows", help="only these, separated by commas: P1,P2 …")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument("--whole", action="store_true", help="run every step of P3's generations, not a few")
    parser.add_argument(
        "--times-only", action="store_true", help="leave the forwards' errors out: a fourth of the time"
    )
    parser.add_argument("--candidates", action="store_true", help="time instead other ways to the same")
    parser.add_argument("--profile", action="store_true", help="show instead where the time of each forward goes")
    parser.add_argument(
        "--dry-run", action="store_true", help="run the rows with tiny sizes on the CPU: no figure means anything"
    )
    options = parser.parse_args(arguments)
    ids = set(options.rows.split(",")) if options.rows else set(SUITES[options.suite])
    unknown = ids - set(SUITES["h100"])
    if unknown:
        parser.error(f"no such rows: {', '.join(sorted(unknown))}; there are {', '.join(SUITES['h100'])}")
    if not options.dry_run and not torch.cuda.is_available():
        parser.error("this needs a CUDA device; --dry-run shows on a CPU that the rows run")
    if options.profile:
        profile(ids)
        return
    given = " ".join(sys.argv[1:] if arguments is None else arguments)
    device = torch.device("cpu" if options.dry_run else "cuda:0")
    found: Iterator[Row | Figures]
    if options.candidates:
        found = measure_candidates(device, dry=options.dry_run)
    else:
        scale = DRY if options.dry_run else H100
        found = measure(ids, scale, device, whole=options.whole, errors_too=not options.times_only)
    run(found, device, options.json, dry=options.dry_run, command=f"wan22 bench engine {given}".strip())
