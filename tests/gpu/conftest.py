from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def cuda() -> torch.device:
    assert torch.cuda.is_available(), (
        "these tests are for a CUDA device: run them by `make test-gpu` where there is one"
    )
    return torch.device("cuda:0")


@pytest.fixture(scope="session")
def figures() -> Iterator[list[dict[str, Any]]]:
    """What the tests measured, one row each; written as JSON to the file that WAN22_FIGURES names, if it does."""
    rows: list[dict[str, Any]] = []
    yield rows
    file = os.environ.get("WAN22_FIGURES")
    if file and rows:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        versions = {name: _version(name) for name in ("torch", "diffusers", "fa3-fwd")}
        text = json.dumps({"device": device, "versions": versions, "rows": rows}, indent=2)
        Path(file).write_text(text + "\n")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
