from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from wan22_bench.report import Figures, Report, Row, versions_of


@pytest.mark.parametrize(
    ("value", "goal", "at_least", "met"),
    [(0.6, 0.7, False, True), (0.8, 0.7, False, False), (61.0, 60.0, True, True), (59.0, 60.0, True, False)],
)
def test_a_goal_is_the_least_or_the_greatest_value(value: float, goal: float, at_least: bool, met: bool) -> None:
    assert Row(id="P8", what="rate", value=value, unit="GB/s", goal=goal, at_least=at_least).met is met


def test_a_row_without_goal_or_value_is_neither_met_nor_missed() -> None:
    assert Row(id=None, what="size", value=1.0, unit="s").met is None
    assert Row(id="P8", what="rate", value=None, unit="GB/s", goal=60.0, at_least=True).met is None


def test_a_report_is_written_and_shown(tmp_path: Path) -> None:
    row = Row(id="P10", what="stored share", value=0.72, unit="1", goal=0.69)
    versions = versions_of("numpy", "no-such-package")
    tables = [Figures(title="Held days", columns=("policy", "loads"), rows=[("wan22", 1234.0)])]
    report = Report(
        name="registry",
        device="2 cores",
        command="wan22 bench registry",
        rows=[row],
        versions=versions,
        tables=tables,
    )
    path = tmp_path / "registry.json"
    report.write(path)
    result = json.loads(path.read_text())
    assert result["rows"][0]["id"] == "P10"
    assert result["rows"][0]["peer"] is None
    assert result["versions"]["no-such-package"] is None
    console = Console(record=True, width=120)
    report.show(console)
    shown = console.export_text()
    assert "missed" in shown
    assert "Held days" in shown
    assert result["tables"] == [{"title": "Held days", "columns": ["policy", "loads"], "rows": [["wan22", 1234.0]]}]
