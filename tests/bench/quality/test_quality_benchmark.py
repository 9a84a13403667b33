from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from wan22_bench.quality.command import main
from wan22_bench.quality.goals import ROWS
from wan22_bench.quality.takes import OPTIONS, TAKES

SMALL = ["--side", "64", "--steps", "2"]
NOT_HERE = {"vae-float16", "text-cpu"}
"""Options that take a CPU long, or are another one there."""
SAME_BITS = {"text-host", "blocks", "no-embedding-cache", "resume"}
"""Options that change none."""


def run(folder: Path, report: Path, *more: str, device: str = "cpu") -> dict[str, Any]:
    main(["--models", str(folder), *SMALL, "--device", device, "--json", str(report), *more])
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def test_every_take_has_a_row() -> None:
    assert set(ROWS) == {*TAKES, "judge", "vae21", "vae22", "chance"}
    assert all(row.id == name for name, rows in ROWS.items() for row in rows)


def test_a_small_run_measures_its_rows(models_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet, names = tmp_path / "sheet.png", [name for name in ROWS if name not in NOT_HERE]
    asked = ["--rows", ",".join(names), "--prompts", "2", "--clips", "2", "--sheet", str(sheet)]
    result = run(models_folder, tmp_path / "quality.json", *asked)
    rows = {(row["id"], row["unit"]): row for row in result["rows"]}
    assert list(dict.fromkeys(name for name, _ in rows)) == names
    assert [key for key, row in rows.items() if row["value"] is None] == [("step-cache", "1")]
    assert rows["step-cache", "1"]["what"].endswith("not measured: the engine has no such option")
    assert {key: row["goal"] for key, row in rows.items() if row["goal"]} == {
        ("judge", "1"): 0.99,
        ("vae21", "dB"): 32,
        ("vae21", "1"): 0.98,
        ("vae22", "dB"): 32,
        ("vae22", "1"): 0.98,
        ("t2v", "1"): 0.95,
        ("ti2v", "1"): 0.95,
        ("i2v", "dB"): 30,
        ("turbo", "1"): 0.9,
    }
    assert all(0 < row["value"] < 60 for (_, unit), row in rows.items() if unit == "dB")
    plain = rows["t2v", "1"]["value"]
    assert {name: row["peer"] for (name, _), row in rows.items() if row["peer"] is not None} == {
        name: plain for name in OPTIONS if name not in {*NOT_HERE, "step-cache"}
    }
    (table,) = result["tables"]
    figures = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}
    assert list(figures) == [name for name in names if name in TAKES and name != "step-cache"]
    assert all(row["steps"] == (4 if name == "turbo" else 2) for name, row in figures.items())
    assert {(row["side"], row["prompts"]) for row in figures.values()} == {(64, 2)}
    assert {figures[name]["read as t2v's"] for name in SAME_BITS} == {1}
    with Image.open(sheet) as opened:
        assert opened.height == 4 * 2 * 136 + 8  # two videos of each variant and of turbo
    progress = capsys.readouterr().err
    assert "t2v: 2 of 2, " in progress
    assert "judge: 2 of 2, " in progress
    assert result["command"].startswith("wan22 bench quality --rows judge,")
    assert str(tmp_path) not in json.dumps(result)


@pytest.mark.gpu
def test_every_row_is_measured_on_a_gpu(models_folder: Path, tmp_path: Path) -> None:
    few = ["--prompts", "2", "--clips", "2", "--processes", "4"]
    result = run(models_folder, tmp_path / "quality.json", *few, device="cuda")
    assert [row["id"] for row in result["rows"] if row["value"] is None] == ["step-cache"]
    (table,) = result["tables"]
    assert {row[0]: row[-1] for row in table["rows"] if row[0] in SAME_BITS} == dict.fromkeys(SAME_BITS, 1)


def test_rows_without_weights_say_so(tmp_path: Path) -> None:
    result = run(tmp_path, tmp_path / "quality.json", "--rows", "judge,vae22,i2v,chance,fp8")
    assert [row["value"] for row in result["rows"]] == [None] * 7
    assert all(row["what"].endswith("not measured: judge.safetensors is not there") for row in result["rows"])
    assert "tables" not in result


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--models", "no-such-folder"], "no-such-folder is no folder"),
        (["--models", ".", "--rows", "t2v,other"], "no such rows: other; there are judge, vae21"),
        (["--models", ".", "--prompts", "0"], "is 0: use 1 or more"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
