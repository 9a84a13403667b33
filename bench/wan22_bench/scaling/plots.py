"""What the comparison looks like: each policy's curve, and one held day of workers and work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from wan22_bench.scaling.comparison import Comparison
from wan22_bench.scaling.trace import DAY
from wan22_bench.scaling.tuning import frontier

mpl.use("Agg")
DPI = 80
COLORS = {"wan22": "tab:red", "HPA": "tab:gray", "KEDA": "tab:blue", "KPA": "tab:green"}


def plot_curves(comparisons: Mapping[float, Comparison], path: Path) -> None:
    """GPU-hours against the share started in time, on the held part; the settings chosen in training are dots."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    panels = figure.subplots(1, len(comparisons), squeeze=False)[0]
    for axes, (load, comparison) in zip(panels, comparisons.items(), strict=True):
        useful = comparison.ours.held.useful_seconds / 3600
        for name, tuned in comparison.tuned.items():
            curve = frontier(tuned.curve)
            axes.plot([p.share for p in curve], [p.gpu_hours / useful for p in curve], color=COLORS[name], label=name)
            axes.plot(tuned.held_point.share, tuned.held_point.gpu_hours / useful, "o", color=COLORS[name])
        lowest = comparison.ours.held_point.share - 0.1
        axes.set(title=f"load {load:g} s", xlabel="share started within the objective", xlim=(lowest, 1.005))
        axes.set(ylabel="GPU-hours over useful", ylim=(1.0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=DPI)


def plot_day(comparison: Comparison, day: int, path: Path) -> None:
    """Workers and outstanding generations over one held day."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    names = [name for name in comparison.tuned if name != "HPA"]
    for axes, name in zip(figure.subplots(len(names), 1, sharex=True), names, strict=True):
        times, workers, outstanding = comparison.tuned[name].held.timeline.T
        inside = (times >= day * DAY) & (times < (day + 1) * DAY)
        hours = (times[inside] - day * DAY) / 3600
        axes.fill_between(hours, outstanding[inside], step="post", color="lightgray", label="outstanding generations")
        axes.step(hours, workers[inside], where="post", color=COLORS[name], linewidth=0.8, label=f"workers of {name}")
        axes.legend(loc="upper left")
        axes.set(xlim=(0, 24))
    figure.supxlabel("hour of the day")
    figure.savefig(path, dpi=DPI)
