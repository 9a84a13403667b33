from __future__ import annotations

import json
import os
import time
from pathlib import Path

from wan22_bench.gateway import endurance, responsiveness
from wan22_bench.gateway.command import main
from wan22_bench.gateway.resources import Usage


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
    times, taken = rows[:8], rows[8:]
    assert [row.id for row in times] == ["P13a", None, None, None, "P13b", None, None, None]
    assert all(0 < (row.value or 0) < 30 for row in times)
    assert [row.unit for row in taken] == ["1", "GiB"] * 3
    assert all(0 <= (row.value or 0) < 1 for row in taken)


def test_what_a_process_takes_of_the_machine_is_counted() -> None:
    with (usage := Usage(os.getpid(), "computing", 1.0, 1.0)):
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
    computed, memory = usage.rows()
    assert 0.0 < (computed.value or 0.0) <= 1.0
    assert (memory.value or 0.0) > 0.01


async def test_memory_is_looked_at_while_simulated_workers_make_videos(tmp_path: Path) -> None:
    rows = [
        *await endurance.measure(tmp_path / "memory", 0.1, workers=2, callers=3, time_scale=0.01, sample_seconds=0.5)
    ]
    assert [row.unit for row in rows] == ["1", "MiB", "MiB", "MiB"]
    assert abs(rows[0].value or 1) < 1
    assert all(row.value is not None for row in rows)  # so that some generations have ended between the two looks
