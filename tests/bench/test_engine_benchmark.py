"""The engine's benchmark on a CPU: every row runs, with tiny sizes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from wan22_bench.engine import candidates, command
from wan22_bench.engine.desktop import Timed, figures
from wan22_bench.engine.generations import Timing, parameters_of, steps_by_expert
from wan22_bench.engine.kernel_times import times_of
from wan22_bench.engine.scale import DRY, H100
from wan22_bench.engine.waits import longest_wait
from wan22_testing.forwards import Work


def test_a_dry_run_has_every_row_of_the_suite_and_says_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    command.main(["--suite", "h100", "--dry-run", "--json", str(tmp_path / "engine.json")])
    report = json.loads((tmp_path / "engine.json").read_text())
    assert "no figure means anything" in report["device"]
    assert "no figure means anything" in capsys.readouterr().out
    assert report["command"].endswith("--dry-run --json " + str(tmp_path / "engine.json"))
    rows = {row["id"]: row for row in report["rows"]}
    assert set(rows) == {*command.SUITES["h100"], "P11", None}
    assert all(row["goal"] is None and row["floor"] is None for row in report["rows"])
    for name in command.SUITES["h100"]:
        if not name.startswith("P11"):
            assert rows[name]["value"] >= 0.0
            assert rows[name]["what"]
    for name in ("P1", "P2", "P2f", "P6b", "P6", "P6f"):
        assert rows[name]["peer"] > 0.0
        assert 0.0 < rows[name]["error"] < 1.0
    assert 0.0 < rows["P11"]["value"] < 20.0
    (desktop,) = report["tables"]
    assert "an estimate, nothing was run on one" in desktop["title"]
    assert [cells[1] for cells in desktop["rows"]] == [cap.limit / 10**9 for cap in DRY.caps]


def test_a_desktop_card_is_said_to_take_as_much_longer_as_its_peak_rate_is_lower() -> None:
    table = figures([Timed("a work", 12.0, 45.0, 1.0), Timed("another", 8.0, None, 0.5)])
    first, second = table.rows
    assert first[:4] == ["a work", 12.0, "45", 1.0]
    assert first[4:] == pytest.approx([10.15, 4 * 10.15, 80 * 10.15], rel=1e-3)
    assert second[2] == ""
    assert second[4] == pytest.approx(5.077, rel=1e-3)


def test_the_rows_of_the_suite_are_at_full_size() -> None:
    assert H100.forwards["P1"] == H100.generation == Work("t2v-a14b", 40, 832, 480, 81)
    assert H100.forwards["P5"] == Work("t2v-a14b", 40, 1280, 720, 81)
    assert [cap.limit for cap in H100.caps] == [12 * 10**9, 15 * 10**9, 10 * 10**9, 8 * 10**9, 8 * 10**9]
    assert {cap.id for cap in DRY.caps} == {cap.id for cap in H100.caps}


def test_a_few_steps_are_scaled_to_those_that_each_expert_runs() -> None:
    assert steps_by_expert(parameters_of(H100.generation, None)) == {0: 26, 1: 14}
    timing = Timing(total=20.0, steps=[(0, 2.0), (0, 2.2), (0, 2.1), (1, 3.0)], denoising=13.0)
    assert timing.scaled({0: 26, 1: 14}) == pytest.approx(7.0 + 26 * 2.1 + 14 * 3.0)


def test_times_can_be_had_without_errors(tmp_path: Path) -> None:
    command.main(["--rows", "P6", "--times-only", "--dry-run", "--json", str(tmp_path / "times.json")])
    (row,) = json.loads((tmp_path / "times.json").read_text())["rows"]
    assert (row["id"], row["error"]) == ("P6", None)
    assert row["value"] > 0.0
    assert row["peer"] > 0.0


def test_what_is_no_row_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--rows", "P99", "--dry-run"])
    assert "no such rows: P99" in capsys.readouterr().err


def test_what_is_not_taken_yet_computes_the_same(tmp_path: Path) -> None:
    command.main(["--candidates", "--dry-run", "--json", str(tmp_path / "candidates.json")])
    rows = json.loads((tmp_path / "candidates.json").read_text())["rows"]
    assert len(rows) == len(candidates.CANDIDATES)
    assert all(row["error"] < 1e-5 and row["value"] > 0.0 and row["peer"] > 0.0 for row in rows)


def event(name: str, start: float, end: float, device: str = "CUDA") -> SimpleNamespace:
    """One of a profiler's trace, in microseconds."""
    return SimpleNamespace(
        name=name, time_range=SimpleNamespace(start=start, end=end), device_type=SimpleNamespace(name=device)
    )


def test_a_wait_is_from_the_last_copy_of_frames_to_the_next_videos_first_kernel() -> None:
    events = [
        event("_norm_rotate", 0, 5),
        event("Memcpy DtoH (Device -> Pinned)", 10, 20),
        event("conv", 20, 90),
        event("Memcpy DtoH (Device -> Pinned)", 90, 100),
        event("Memcpy HtoD (Pageable -> Device)", 20_000, 20_100),
        event("_norm_rotate", 30_100, 30_200),
        event("_norm_rotate", 30_300, 30_400),
        event("Memcpy DtoH (Device -> Pinned)", 30_500, 30_600),
    ]
    assert longest_wait(events) == pytest.approx(0.03)


def test_a_forwards_time_is_told_by_kind_of_kernel_and_as_what_is_between_kernels() -> None:
    events = [
        event("cudaLaunchKernel", 0, 90_000, "CPU"),
        event("flash_fwd", 1_000, 5_000),
        event("nvjet_hsh", 7_000, 8_000),
        event("_quantise_rows", 7_500, 9_000),  # on another stream
        event("flash_fwd", 9_500, 11_000),
    ]
    times = times_of(events)
    assert list(times.by_kind.items()) == [("attention", 5.5), ("quantisation", 1.5), ("products", 1.0)]
    assert (times.whole, times.idle, times.count) == (10.0, 2.5, 4)
