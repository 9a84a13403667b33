"""Benchmarks on a machine with a GPU that has torch and little else, and our code by a path alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOTS = [ROOT / folder for folder in ("services/common", "services/inference", "bench", "testing")]
TORCH = ("torch", "triton", "numpy", "safetensors", "transformers", "tokenizers")
"""Packages that come with the machine, and theirs."""
PROGRAM = """
import importlib.metadata as metadata
import importlib.machinery as machinery
import re, runpy, sys

def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()

here, wanted = set(), [plain(name) for name in sys.argv.pop(1).split(",")]
while wanted:
    name = wanted.pop()
    if name not in here:
        here.add(name)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another platform
        wanted += [plain(re.match(r"[A-Za-z0-9._-]+", need)[0]) for need in needs if "extra ==" not in need]
missing = {
    module for module, packages in metadata.packages_distributions().items() if not here & set(map(plain, packages))
}

class Bare(machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        ours = name.startswith("wan22")
        return super().find_spec(name, path, target) if ours or name.partition(".")[0] not in missing else None

sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not machinery.PathFinder] + [Bare]
sys.argv.pop(0)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def run_bare(packages: tuple[str, ...], *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, ROOTS))}
    program = [sys.executable, "-c", PROGRAM, ",".join(packages), *command]
    return subprocess.run(program, check=False, capture_output=True, text=True, env=environment, timeout=300)


def test_what_is_not_there_is_not_imported() -> None:
    result = run_bare(TORCH, "grpc")
    assert result.returncode == 1
    assert "No module named grpc" in result.stderr


@pytest.mark.parametrize(
    ("more", "arguments"),
    [((), ()), (("diffusers", "av", "pillow", "ftfy"), ("--cold-start", "t2v-a14b-tiny"))],
    ids=["weights alone", "a cold start too"],
)
def test_the_registry_benchmark_runs(tmp_path: Path, more: tuple[str, ...], arguments: tuple[str, ...]) -> None:
    packages = (*TORCH, "blake3", "zstandard", "cffi", "nvidia-nvcomp-cu13", *more)
    command = ["wan22_bench.registry", "--device", "cpu", "--size", "1e6", "--folder", str(tmp_path), *arguments]
    result = run_bare(packages, *command)
    assert result.returncode == 0, result.stderr
    assert "P9b" in result.stdout
