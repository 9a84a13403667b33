"""Renders docs/benchmarks.md from docs/benchmarks/*.json and a template; --check says whether it is true to them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "docs" / "benchmarks"
PAGE = FOLDER.with_suffix(".md")


def table(result: dict[str, Any]) -> str:
    """One benchmark's rows as a Markdown table, under what they were measured on and by."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    lines = [
        f"{result['device']}, {versions}; {result['date']}, commit {result['commit']}, `{result['command']}`.",
        "",
        "| id | what | value | peer | value / peer | goal | error | peak memory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        unit = "" if row["unit"] == "1" else f" {row['unit']}"
        ratio = row["value"] / row["peer"] if row["value"] and row["peer"] else None
        cells = [
            row["id"] or "",
            row["what"],
            _number(row["value"], unit),
            _number(row["peer"], unit),
            _number(ratio, ""),
            _goal(row, unit),
            _number(row["error"], ""),
            f"{row['peak_bytes'] / 2**30:.1f} GiB" if row["peak_bytes"] else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for figures in result.get("tables", ()):
        lines += ["", f"{figures['title']}:", "", f"| {' | '.join(figures['columns'])} |"]
        lines.append(f"| {' | '.join('---' for _ in figures['columns'])} |")
        lines += [f"| {' | '.join(map(_cell, cells))} |" for cells in figures["rows"]]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.3g}{unit}"


def _goal(row: dict[str, Any], unit: str) -> str:
    if row["goal"] is None:
        return ""
    if row["value"] is None:
        return f"{row['goal']:g}{unit}: not measured"
    least = row.get("at_least", False)
    met = row["value"] >= row["goal"] if least else row["value"] <= row["goal"]
    return f"at {'least' if least else 'most'} {row['goal']:g}{unit}: {'met' if met else '**missed**'}"


def main() -> int:
    """Returns the exit code."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
    page = (FOLDER / "template.md").read_text()
    for name, result in results.items():
        page = page.replace("{" + name + "}", table(result))
    if "--check" in sys.argv[1:]:
        if PAGE.read_text() != page:
            sys.stderr.write(f"{PAGE} is not what its figures give: run tools/render_benchmarks.py.\n")
            return 1
        return 0
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
