from __future__ import annotations

from pathlib import Path

import pytest

from wan22_inference.kernel_cache import VARIABLE, keep_kernels


def test_kernels_are_kept_beside_the_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, "")  # so that the test's own setting goes with it
    monkeypatch.delenv(VARIABLE)
    assert keep_kernels(tmp_path) == tmp_path / "kernels"
    triton = pytest.importorskip("triton")
    assert Path(triton.knobs.cache.dir) == tmp_path / "kernels"


def test_a_folder_that_is_given_to_triton_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine"))
    assert keep_kernels(tmp_path) == tmp_path / "mine"
