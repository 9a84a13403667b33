from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import torch

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
ROW_FIELDS = ("id", "what", "value", "unit", "goal", "peer", "floor", "error", "peak_bytes")
"""Of a benchmark's row; what a test does not measure is null."""


def pytest_configure() -> None:
    """Ends the run where packages are missing, and names them all: else each file would fail at its first import."""
    lines = REQUIREMENTS.read_text().splitlines()
    missing = [name for name in lines if name and not name.startswith("#") and _version(name) is None]
    if missing:
        raise pytest.UsageError(
            f"tests/gpu need packages that are not installed: {', '.join(missing)}. "
            f"Install all that they need: pip install --constraint constraints.txt -r {REQUIREMENTS}"
        )


@pytest.fixture(scope="session")
def cuda() -> torch.device:
    assert torch.cuda.is_available(), (
        "these tests are for a CUDA device: run them by `make test-gpu` where there is one"
    )
    torch.cuda.init()  # type: ignore[no-untyped-call]  # torch's; else its memory statistics refuse to be reset
    return torch.device("cuda:0")


@pytest.fixture(autouse=True)
def memory_is_given_back() -> Iterator[None]:
    """After each test: what only garbage holds, or the frames of a failure, may be a whole model."""
    yield
    for name in ("last_exc", "last_value", "last_traceback"):
        vars(sys).pop(name, None)
    gc.collect()
    torch.cuda.empty_cache()


@pytest.fixture(scope="session")
def figures() -> Iterator[list[dict[str, Any]]]:
    """What the tests measured, a row each; written as JSON to the file that WAN22_FIGURES names, if it does."""
    rows: list[dict[str, Any]] = []
    yield rows
    file = os.environ.get("WAN22_FIGURES")
    if file and rows:
        result = {
            "name": "engine",
            "commit": os.environ.get("WAN22_COMMIT"),
            "date": datetime.now(UTC).date().isoformat(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "versions": {name: _version(name) for name in ("torch", "triton", "diffusers", "fa3-fwd")},
            "command": "python -m pytest -m gpu tests/gpu",
            "rows": [dict.fromkeys(ROW_FIELDS) | row for row in rows],
        }
        Path(file).write_text(json.dumps(result, indent=2) + "\n")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
