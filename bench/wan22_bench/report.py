"""What a benchmark found: one row a goal, as a table for people and as JSON for docs/benchmarks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure; what was not measured is None."""

    id: str | None
    """As the goal is named: P10, S1 …; None for a figure without a goal."""
    what: str
    value: float | None
    """Measured in this run."""
    unit: str
    """s, GB/s …; `1` for a ratio."""
    goal: float | None = None
    at_least: bool = False
    """True where more is better: the goal is then the least value, else the greatest."""
    peer: float | None = None
    """The named peer's figure, measured in this run."""
    floor: float | None = None
    """What the hardware allows."""
    error: float | None = None
    """Relative to a reference in higher precision."""
    peak_bytes: int | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none, or no value."""
        if self.goal is None or self.value is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A table of figures beside the rows, for what has no goal of its own."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float]]


@dataclass(frozen=True, kw_only=True)
class Report:
    """All rows of one run, and what it ran on."""

    name: str
    """Of the benchmark: registry, scaling …"""
    device: str
    command: str
    rows: Sequence[Row]
    versions: Mapping[str, str | None]
    tables: Sequence[Figures] = ()

    def write(self, path: Path) -> None:
        """Writes the JSON form."""
        result = {
            "name": self.name,
            "commit": _commit(),
            "date": datetime.now(UTC).date().isoformat(),
            "device": self.device,
            "versions": dict(self.versions),
            "command": self.command,
            "rows": [asdict(row) for row in self.rows],
        }
        if self.tables:
            result["tables"] = [asdict(table) for table in self.tables]
        path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")

    def show(self, console: Console) -> None:
        """Prints the table."""
        table = Table(title=f"{self.name}: {self.device}", title_justify="left")
        for heading in ("id", "what", "value", "peer", "floor", "goal", ""):
            table.add_column(heading)
        for row in self.rows:
            goal = "" if row.goal is None else f"{'>=' if row.at_least else '<='} {row.goal:g}"
            verdict = {None: "", True: "met", False: "missed"}[row.met]
            unit = "" if row.unit == "1" else f" {row.unit}"
            cells = [_number(value, unit) for value in (row.value, row.peer, row.floor)]
            table.add_row(row.id or "", row.what, *cells, goal, verdict)
        console.print(table)
        for figures in self.tables:
            table = Table(*figures.columns, title=figures.title, title_justify="left")
            for figure_row in figures.rows:
                table.add_row(*(cell if isinstance(cell, str) else f"{cell:.4g}" for cell in figure_row))
            console.print(table)


def versions_of(*packages: str) -> dict[str, str | None]:
    """The installed version of each; None for one that is not there."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.4g}{unit}"


def _commit() -> str | None:
    """The commit of the checkout that this file is in, if it is in one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    return result.stdout.strip() or None
