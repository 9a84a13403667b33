from __future__ import annotations

import json
from pathlib import Path

from wan22_bench.gateway.command import main


def test_a_short_run_measures_both_rates_beside_the_echo_servers(tmp_path: Path) -> None:
    report = tmp_path / "gateway.json"
    main(["--rounds", "1", "--seconds", "0.3", "--folder", str(tmp_path), "--json", str(report)])
    rows = json.loads(report.read_text())["rows"]
    assert [(row["id"], row["unit"]) for row in rows] == [
        ("P12a", "1"),
        (None, "calls/s"),
        ("P12b", "1"),
        (None, "calls/s"),
    ]
    for ratio, rates in (rows[:2], rows[2:]):
        assert ratio["value"] > 0
        assert abs(rates["value"] / rates["peer"] - ratio["value"]) < 0.01
