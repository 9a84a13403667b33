from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wan22.errors import InvalidRequest
from wan22_bench.scaling.command import main


def write_trace(path: Path, days: int, a_day: int) -> None:
    rng = np.random.default_rng(1)
    lines = ["created,exec_seconds"]
    for day in range(1, days + 1):
        midnight = datetime(2024, 11, day, tzinfo=UTC).replace(tzinfo=None)
        seconds = sorted(rng.integers(8 * 3600, 10 * 3600, a_day).tolist())
        lines += [f"{midnight + timedelta(seconds=second)},20" for second in seconds]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a small run on three days, of two settings a policy, has written."""
    folder = tmp_path_factory.mktemp("scaling")
    (folder / "traces").mkdir()
    write_trace(folder / "traces/long.csv", days=3, a_day=60)
    write_trace(folder / "traces/short.csv", days=1, a_day=30)
    flags = ["--training-days", "2", "--held-days", "1", "--settings", "2", "--shapes", "step"]
    outputs = ["--json", str(folder / "scaling.json"), "--plots", str(folder)]
    main(["--traces", str(folder / "traces"), *flags, *outputs])
    return folder


def test_the_rows_are_ratios_of_what_the_tables_say(written: Path) -> None:
    result: dict[str, Any] = json.loads((written / "scaling.json").read_text())
    rows = {row["id"]: row for row in result["rows"] if row["id"]}
    assert list(rows) == ["S1", "S2", "S3", "S4", "S5"]
    assert [rows[name]["goal"] for name in rows] == [0.8, 0.95, 0.5, 1.2, 0.8]
    useful = 60 * 100 / 3600  # of the held day's 60 generations, five times 20 s each
    table = next(table for table in result["tables"] if "load 90 s, each tuned" in table["title"])
    figures = dict(zip(table["columns"], table["rows"][0], strict=True))
    assert figures["policy"] == "wan22"
    assert rows["S4"]["value"] * useful == pytest.approx(float(figures["GPU-hours"]), abs=0.06)
    assert rows["S4"]["value"] >= 1.0
    others = [row["value"] for row in result["rows"] if row["what"].startswith("GPU-hours over the best tuned HPA")]
    assert rows["S5"]["value"] == max(others)


def test_every_policy_is_played_on_every_trace(written: Path) -> None:
    result: dict[str, Any] = json.loads((written / "scaling.json").read_text())
    played = [row[0] for row in result["tables"][-1]["rows"]]
    assert played == [f"{name}: {policy}" for name in ("short", "step") for policy in ("wan22", "HPA", "KEDA", "KPA")]


def test_plots_are_small_pngs(written: Path) -> None:
    for name in ("scaling-curves.png", "scaling-day.png"):
        content = (written / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) < 200_000


def test_a_folder_without_traces_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"holds no traces: put CSV files there .* or leave --traces out"):
        main(["--traces", str(tmp_path)])


def test_traces_of_too_few_days_are_refused_with_what_to_do(tmp_path: Path) -> None:
    write_trace(tmp_path / "short.csv", days=3, a_day=5)
    with pytest.raises(InvalidRequest, match="has 15 days: lower --training-days and --held-days"):
        main(["--traces", str(tmp_path)])


def test_without_traces_synthetic_days_are_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--json", str(tmp_path / "scaling.json"), "--shapes", "diurnal", "flash crowd"])
    result = json.loads((tmp_path / "scaling.json").read_text())
    assert result["rows"] == []
    assert [len(table["rows"]) for table in result["tables"]] == [8]
    assert "policies by their defaults" in capsys.readouterr().out
