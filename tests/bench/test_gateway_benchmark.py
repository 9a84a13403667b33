from __future__ import annotations

import json
from pathlib import Path

from wan22_bench.gateway import responsiveness
from wan22_bench.gateway.command import main


def test_a_short_run_measures_both_rates_beside_the_echo_servers(tmp_path: Path) -> None:
    report = tmp_path / "gateway.json"
    main(["--rounds", "1", "--seconds", "0.3", "--http-seconds", "0", "--folder", str(tmp_path), "--json", str(report)])
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


async def test_http_is_timed_beside_a_queue_and_its_watchers(tmp_path: Path) -> None:
    rows = [*await responsiveness.measure(tmp_path / "p13", 0.5, queued=20, watchers=10)]
    assert [(row.id, row.unit) for row in rows] == [("P13a", "s"), ("P13b", "s")]
    assert all(0 < (row.value or 0) < 30 for row in rows)
