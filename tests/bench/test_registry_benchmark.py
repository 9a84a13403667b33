from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from wan22_bench.registry.command import main
from wan22_bench.registry.model_weights import Shape, make_weights, quantised


def test_a_small_run_measures_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "registry.json"
    main(
        [
            "--device",
            "cpu",
            "--size",
            "1e6",
            "--folder",
            str(tmp_path),
            "--json",
            str(report),
            "--cold-start",
            "t2v-a14b-tiny",
        ]
    )
    assert list(tmp_path.iterdir()) == [report]
    result = json.loads(report.read_text())
    assert result["name"] == "registry"
    rows = result["rows"]
    assert [row["id"] for row in rows] == ["P10", "P10b", "P10b", "P9b", "P8", None, "P9", None, None]
    found = {row["id"]: row for row in rows if row["id"]}
    assert 0.6 < found["P10"]["value"] < 0.72
    assert 0.38 < rows[1]["value"] < 0.45
    for row in ("P9b", "P8"):
        assert found[row]["value"] > 0
        assert found[row]["peer"] > 0
    assert found["P8"]["goal"] is None  # it is one for a GPU
    memory, start = rows[-2:]
    assert start["value"] > 0
    assert "to what it needs of the model" in start["what"]
    assert 0 <= memory["value"] < memory["goal"]
    assert "P9b" in capsys.readouterr().out


@pytest.mark.parametrize("size", [1e6, 1e8, 0.71e9, 3e9])
def test_the_weights_have_about_the_size_that_was_asked_for(size: float) -> None:
    shape = Shape.of(int(size))
    assert shape.dim == 5120 if size >= 0.7e9 else shape.dim < 5120
    if size <= 1e6:
        weights = make_weights(int(size), torch.device("cpu"))
        assert 0.5 < sum(tensor.nbytes for tensor in weights.values()) / size < 1.5


def test_quantised_weights_are_half_as_large_and_have_scales() -> None:
    weights = make_weights(1_000_000, torch.device("cpu"))
    eight = quantised(weights)
    name = next(name for name, tensor in weights.items() if tensor.ndim == 2)
    assert eight[name].dtype is torch.float8_e4m3fn
    restored = eight[name].float() * eight[f"{name}_scale"].unsqueeze(1)
    torch.testing.assert_close(restored, weights[name].float(), rtol=0.07, atol=1e-3)
