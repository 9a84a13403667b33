"""What tools/images/install.py puts into an image, by pyproject.toml and the metadata of what is installed here."""

import re
import runpy
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
INSTALL = runpy.run_path(str(ROOT / "tools/images/install.py"))
PROGRAMS = {
    ("gateway", "postgres"): ["wan22_gateway.__main__", "wan22_gateway.migrate", "wan22_cli.__main__"],
    ("registry",): ["wan22_registry.__main__", "wan22_registry.node_cache.__main__"],
    ("operator",): ["wan22_operator.__main__"],
    ("simulated",): ["wan22_testing.simulated_worker.__main__"],
}
"""What the images with these extras start."""
WORKER = ["wan22_inference.__main__", "wan22_inference.service"]
"""What it starts, and what that imports once it has its settings."""
WITHOUT = """
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""
HEAVY = {"torch", "triton", "diffusers", "transformers", "numba", "scipy", "pandas"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def packages(*extras: str) -> set[str]:
    """All packages that an image of the extras holds, by their normal names."""
    found: set[str] = set()
    wanted = [Requirement(text) for text in INSTALL["requirements"](ROOT / "pyproject.toml", extras)]
    seen: set[tuple[str, str]] = set()
    while wanted:
        requirement = wanted.pop()
        name = normal(requirement.name)
        found.add(name)
        for extra in ["", *sorted(requirement.extras)]:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                needs = distribution(name).requires or []
            except PackageNotFoundError:  # not in this environment: then none of ours needs it here
                continue
            given = {"extra": extra}
            wanted += [one for one in map(Requirement, needs) if one.marker is None or one.marker.evaluate(given)]
    return found


@pytest.mark.parametrize("extras", [("gateway", "postgres"), ("registry",), ("operator",), ("simulated",)])
def test_a_service_without_a_model_brings_no_torch(extras: tuple[str, ...]) -> None:
    found = packages(*extras)
    assert "grpcio" in found
    assert found & HEAVY == set()
    assert [name for name in found if name.startswith("nvidia-")] == []


def start_without(absent: set[str], programs: Sequence[str]) -> None:
    """Imports programs where modules cannot be found; the assertion's message is what Python said."""
    imports = "".join(f"import {name}\n" for name in programs)
    code = f"absent = {absent!r}\n{WITHOUT}\n{imports}"
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def modules_beyond(found: set[str]) -> set[str]:
    """What is installed here and not of the packages `found`, nor ours."""
    modules = packages_distributions().items()
    return {name for name, of in modules if not name.startswith("wan22") and not found & {normal(one) for one in of}}


@pytest.mark.parametrize("extras", PROGRAMS)
def test_a_program_starts_without_what_is_not_in_its_image(extras: tuple[str, ...]) -> None:
    absent = modules_beyond(packages(*extras))
    assert {"torch", "hypothesis"} <= absent
    start_without(absent, PROGRAMS[extras])


@pytest.mark.long
def test_a_worker_for_the_cpu_starts_without_triton_and_what_nobody_asked_for() -> None:
    absent = modules_beyond(packages("inference")) | {"triton"}
    assert {"hypothesis", "sqlalchemy"} <= absent
    start_without(absent, WORKER)


@pytest.mark.long
def test_tiny_models_are_made_without_what_is_not_in_an_install_for_one_machine() -> None:
    absent = modules_beyond(packages("local"))
    assert {"transformers", "peft"} <= absent
    start_without(absent, ["wan22_testing.trained", *WORKER, "wan22_cli.__main__"])


def test_the_worker_brings_torch_and_its_extras_what_a_card_needs() -> None:
    found = packages("inference")
    assert {"torch", "av"} <= found
    assert not {"diffusers", "transformers"} & found
    assert {"torch", "fa3-fwd", "nvidia-libnvcomp-cu13"} <= packages("hopper", "nvcomp")


def test_extras_that_name_extras_of_ours_are_followed_and_nothing_else_of_ours_is_installed(tmp_path: Path) -> None:
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text(
        """
        [project]
        dependencies = ["rich"]
        [project.optional-dependencies]
        pack = ["numpy>=2"]
        both = ["wan22[pack,oci]", "av"]
        oci = ["httpx", "wan22[pack]"]
        other = ["torch"]
        """
    )
    assert INSTALL["requirements"](pyproject, ["both"]) == ["av", "httpx", "numpy>=2", "rich"]
