from __future__ import annotations

import json
from pathlib import Path

from wan22_bench.gateway import endurance, responsiveness
from wan22_bench.gateway.command import main


def test_a_short_run_measures_both_rates_beside_the_echo_servers(tmp_path: Path) -> None:
    report = tmp_path / "gateway.json"
    main(["--rounds", "1", "--seconds", "0.3", "--http-seconds", "0", "--folder", str(tmp_path), "--json", str(report)])
    rows = json.loads(report.read_text())["rows"]
    sqlite = [("P12a", "1"), (None, "calls/s"), ("P12b", "1"), (None, "calls/s")]
    postgres = [(None, unit) for _, unit in sqlite]
    assert [(row["id"], row["unit"]) for row in rows] == [*sqlite, *postgres]
    for ratio, rates in (rows[:2], rows[2:4], rows[4:6], rows[6:]):
        assert ratio["value"] > 0
        assert abs(rates["value"] / rates["peer"] - ratio["value"]) < 0.01


async def test_http_is_timed_beside_a_queue_and_its_watchers(tmp_path: Path) -> None:
    rows = [*await responsiveness.measure(tmp_path / "p13", 0.5, queued=20, watchers=10)]
    assert [(row.id, row.unit) for row in rows] == [("P13a", "s"), (None, "s"), ("P13b", "s"), (None, "s")]
    assert all(0 < (row.value or 0) < 30 for row in rows)


async def test_memory_is_looked_at_while_simulated_workers_make_videos(tmp_path: Path) -> None:
    rows = [
        *await endurance.measure(tmp_path / "memory", 0.1, workers=2, callers=3, time_scale=0.01, sample_seconds=0.5)
    ]
    assert [row.unit for row in rows] == ["1", "MiB", "MiB", "MiB"]
    assert abs(rows[0].value or 1) < 1
    assert all(row.value is not None for row in rows)  # so that some generations have ended between the two looks
