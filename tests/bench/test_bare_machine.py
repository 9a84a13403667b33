"""Benchmarks on a machine with a GPU that has torch and little else, and our code by a path alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
ROOTS = [ROOT / folder for folder in ("services/common", "services/inference", "bench", "testing")]
TORCH = ("torch", "triton", "numpy", "safetensors", "transformers", "tokenizers")
"""Packages that come with the machine, and theirs."""
MACHINE = (*TORCH, "pytest", "rich", "pillow")
"""As tests/gpu/requirements.txt says it."""
LISTED = tuple(
    line for line in (ROOT / "tests/gpu/requirements.txt").read_text().splitlines() if line and line[0] != "#"
)
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
    @staticmethod
    def find_distributions(context=metadata.DistributionFinder.Context()):
        found = machinery.PathFinder.find_distributions(context)
        return (one for one in found if plain(one.metadata["Name"]) in here)

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
    return subprocess.run(program, check=False, capture_output=True, text=True, env=environment, timeout=300, cwd=ROOT)


def test_what_is_not_there_is_not_imported() -> None:
    result = run_bare(TORCH, "grpc")
    assert result.returncode == 1
    assert "No module named grpc" in result.stderr


def needs_of(names: Iterable[str]) -> set[str]:
    """Packages, and those that they need here."""
    found: set[str] = set()
    left = [canonicalize_name(name) for name in names]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            try:
                needs = map(Requirement, metadata.requires(name) or [])
            except metadata.PackageNotFoundError:
                continue  # for another platform
            wanted = [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
            left += [canonicalize_name(need.name) for need in wanted]
    return found


def test_the_list_of_packages_has_also_what_those_in_it_need() -> None:
    assert sorted(LISTED) == list(LISTED)
    assert needs_of(LISTED) - needs_of(MACHINE) == set(LISTED)


def test_the_gpu_tests_are_collected_with_the_listed_packages() -> None:
    command = ["pytest", "--collect-only", "-q", "-m", "gpu", "--confcutdir", "tests/gpu", "tests/gpu"]
    result = run_bare((*MACHINE, *LISTED), *command)
    assert result.returncode == 0, result.stdout + result.stderr
    for file in (ROOT / "tests/gpu").glob("test_*.py"):
        assert f"tests/gpu/{file.name}" in result.stdout


def test_the_gpu_tests_say_at_once_which_packages_are_missing() -> None:
    there = [name for name in LISTED if name not in {"cffi", "pycparser"}]
    command = ["pytest", "-q", "-m", "gpu", "--confcutdir", "tests/gpu", "tests/gpu"]
    result = run_bare((*MACHINE, *there), *command)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR, result.stdout + result.stderr
    assert "need packages that are not installed: cffi, pycparser. Install" in result.stderr


def test_the_quality_benchmark_runs_with_the_listed_packages(tmp_path: Path) -> None:
    command = ["--device", "cpu", "--rows", "ti2v", "--prompts", "1", "--steps", "1", "--side", "64"]
    result = run_bare((*MACHINE, *LISTED), "wan22_bench.quality", *command)
    assert result.returncode == 0, result.stderr
    assert "ti2v" in result.stdout


def test_the_engine_benchmark_is_imported_with_the_listed_packages() -> None:
    result = run_bare((*MACHINE, *LISTED), "wan22_bench.engine", "--help")
    assert result.returncode == 0, result.stderr
    assert "--suite" in result.stdout


@pytest.mark.parametrize(
    ("packages", "arguments"),
    [
        ((*TORCH, "blake3", "zstandard", "cffi"), ()),
        ((*MACHINE, *LISTED), ("--cold-start", "t2v-a14b-tiny")),
    ],
    ids=["weights alone", "a cold start too"],
)
def test_the_registry_benchmark_runs(tmp_path: Path, packages: tuple[str, ...], arguments: tuple[str, ...]) -> None:
    command = ["wan22_bench.registry", "--device", "cpu", "--size", "1e6", "--folder", str(tmp_path), *arguments]
    result = run_bare(packages, *command)
    assert result.returncode == 0, result.stderr
    assert "P9b" in result.stdout
