"""What a worker imports: each second of it is one of a cold start."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wan22_testing.tiny_models import shared_folder

VARIANT = "t2v-a14b-tiny"
HEAVY = {
    *("transformers", "diffusers", "sympy", "sklearn", "scipy"),
    *("torch._dynamo", "torch._inductor", "torch.distributed.tensor"),
}


def imported_by(code: str, *arguments: str) -> set[str]:
    """The modules that a fresh process has in the end."""
    program = f"import json, sys\n{code}\nprint(json.dumps(list(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program, *arguments], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize("program", ["wan22_inference.service", "wan22_bench.registry.first_step"])
def test_what_a_worker_starts_with_is_light(program: str) -> None:
    found = imported_by(f"import {program}")
    assert "wan22_inference.engine.generate" in found
    assert found & HEAVY == set()


def test_a_worker_reads_its_settings_before_it_imports_what_computes() -> None:
    assert "torch" not in imported_by("import wan22_inference.__main__")


def test_nothing_heavy_is_imported_up_to_the_first_step(tmp_path: Path) -> None:
    folder = shutil.copytree(shared_folder(VARIANT), tmp_path / "model")
    code = "from wan22_bench.registry import cold_process; cold_process.main()"
    assert imported_by(code, str(folder), VARIANT, "cpu", str(time.monotonic())) & HEAVY == set()
