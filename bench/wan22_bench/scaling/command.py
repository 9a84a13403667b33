"""`wan22 bench scaling`: tunes the policies on the first days of a trace and compares them on the days held back."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from wan22.errors import InvalidRequest
from wan22_bench.report import Figures, Report, versions_of
from wan22_bench.scaling.comparison import COLUMNS, GOALS_AT, SHARES, Comparison, figures, goal_rows, held_table
from wan22_bench.scaling.families import FAMILIES, FORESIGHT
from wan22_bench.scaling.floor import least_gpu_seconds
from wan22_bench.scaling.job_sizes import as_videos
from wan22_bench.scaling.plots import plot_curves, plot_day
from wan22_bench.scaling.simulator import Setup
from wan22_bench.scaling.synthetic import SHAPES, synthetic_trace
from wan22_bench.scaling.trace import Trace, read_trace
from wan22_bench.scaling.tuning import Part, simulate, some_of, tune

AN_HOUR = 200.0
"""Generations; a busier trace is thinned to these, which keep some six workers busy."""


@dataclass(frozen=True, kw_only=True)
class Traces:
    """What lies in the folder."""

    long: Trace | None
    """The one to tune on and to compare on."""
    short: Mapping[str, Trace]
    """Those of too few days, by name: played as tuned on the other."""


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="wan22 bench scaling", description=__doc__)
    parser.add_argument(
        "--traces",
        type=Path,
        metavar="FOLDER",
        help="of CSV files with columns `created` and `exec_seconds`; without it only synthetic days are played",
    )
    parser.add_argument("--factor", type=float, default=5.0, help="how much longer than its requests videos take")
    parser.add_argument("--training-days", type=int, default=10, help="the first days, to tune on")
    parser.add_argument("--held-days", type=int, default=5, help="the days after them, to compare on")
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES), help="synthetic days to play")
    parser.add_argument("--settings", type=int, default=10_000, metavar="N", help="try at most so many of each policy")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write PNGs there")
    options = parser.parse_args(arguments)
    comparisons: dict[float, Comparison] = {}
    traces = read_folder(options) if options.traces is not None else Traces(long=None, short={})
    if traces.long is not None:
        comparisons = {load: _compare(load, traces.long, options) for load in SHARES}
        if options.plots is not None:
            plot_curves(comparisons, options.plots / "scaling-curves.png")
            plot_day(comparisons[GOALS_AT], 1, options.plots / "scaling-day.png")
    report = Report(
        name="scaling",
        device=f"simulated, Python {platform.python_version()}",
        command=" ".join(["wan22 bench scaling", *(["--traces FOLDER"] if options.traces is not None else [])]),
        rows=goal_rows(comparisons) if comparisons else [],
        versions=versions_of("numpy"),
        tables=[*map(held_table, comparisons.values()), _unseen_table(traces.short, comparisons, options)],
    )
    report.show(Console(width=180))
    if options.json is not None:
        report.write(options.json)


def read_folder(options: argparse.Namespace) -> Traces:
    """The folder's traces, given video sizes and thinned. Raises InvalidRequest where there is nothing to tune on."""
    files = sorted(options.traces.glob("*.csv"))
    if not files:
        raise InvalidRequest(
            f"{options.traces} holds no traces: put CSV files there with columns `created` (ISO 8601) and "
            "`exec_seconds`, one of them of "
            f"{options.training_days + options.held_days} days, or leave --traces out to play synthetic days alone."
        )
    long, short = None, {}
    for path in files:
        trace = _thinned(read_trace(path), options.seed)
        videos = as_videos(trace, options.factor, options.seed)
        if trace.days < options.training_days + options.held_days:
            short[path.stem] = videos
        elif long is None:
            long = videos
        else:
            _say(f"{path} is left out: the first trace of enough days is taken.")
    if long is None:
        raise InvalidRequest(
            f"None of the traces in {options.traces} has {options.training_days + options.held_days} days: lower "
            "--training-days and --held-days, or leave --traces out."
        )
    return Traces(long=long, short=short)


def _thinned(trace: Trace, seed: int) -> Trace:
    """At most AN_HOUR generations an hour on average."""
    hours = max((trace.arrivals[-1] - trace.arrivals[0]) / 3600, 1.0)
    return trace.thinned(min(1.0, AN_HOUR * hours / len(trace)), seed)


def _compare(load_seconds: float, trace: Trace, options: argparse.Namespace) -> Comparison:
    """All policies at one load time."""
    first, last = options.training_days, options.training_days + options.held_days
    training, held = Part(trace.between(0, first), first), Part(trace.between(first, last), last - first)
    setup = Setup(load_seconds=load_seconds, seed=options.seed)
    tuned = {}
    for family in FAMILIES:
        choices = some_of(family.grid, options.settings, options.seed)
        tuned[family.name] = tune(family, choices, training, held, setup, SHARES[load_seconds], _say)
    foresight = simulate(FORESIGHT, {}, held, setup)
    floor = least_gpu_seconds(held.trace, setup, tuned["wan22"].held_point.share)
    return Comparison(setup=setup, tuned=tuned, foresight=foresight, floor_hours=floor / 3600)


def _unseen_table(
    short: Mapping[str, Trace], comparisons: Mapping[float, Comparison], options: argparse.Namespace
) -> Figures:
    """Each policy on traces that it was not tuned on, with what was chosen on the other, else its defaults."""
    setup = Setup(load_seconds=GOALS_AT, seed=options.seed)
    parts = {name: Part(trace, 0) for name, trace in short.items()}
    parts |= {shape: Part(synthetic_trace(shape, options.seed), 1) for shape in options.shapes}
    rows: list[Sequence[str | float]] = []
    for name, part in parts.items():
        for family in FAMILIES:
            chosen = comparisons[GOALS_AT].tuned[family.name].chosen.settings if comparisons else family.grid[0]
            rows.append(figures(f"{name}: {family.name}", simulate(family, chosen, part, setup), setup))
    how = "as tuned above" if comparisons else "by their defaults"
    return Figures(
        title=f"Traces that nothing was tuned on, load {GOALS_AT:g} s, policies {how}", columns=COLUMNS, rows=rows
    )


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
