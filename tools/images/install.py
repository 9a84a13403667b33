"""Installs what extras of wan22 depend on, not wan22 itself: `install.py VENV EXTRA…`, run while an image is built.

The dependencies thus lie in a layer of their own, which stays the same while only wan22's code changes.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

OWN_EXTRAS = re.compile(r"wan22\[(?P<extras>[^]]+)\]")


def requirements(pyproject: Path, extras: Sequence[str]) -> list[str]:
    """Returns the requirements of the base install and of `extras`, with those of the extras that they name, sorted."""
    project = tomllib.loads(pyproject.read_text())["project"]
    return sorted({*project["dependencies"], *_of_extras(project["optional-dependencies"], extras)})


def _of_extras(table: dict[str, list[str]], extras: Sequence[str]) -> Iterator[str]:
    for extra in extras:
        for requirement in table[extra]:
            if named := OWN_EXTRAS.fullmatch(requirement):
                yield from _of_extras(table, named["extras"].split(","))
            else:
                yield requirement


def install(venv: Path, wanted: Sequence[str]) -> None:
    """Fills a new virtual environment without pip; byte code never looks at times, which an image does not keep."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python"), "install"]
    subprocess.run([*pip, "--no-compile", "--only-binary=:all:", *wanted], check=True)
    for script in venv.glob("bin/[Aa]ctivate*"):
        script.unlink()


if __name__ == "__main__":
    install(Path(sys.argv[1]), requirements(Path("pyproject.toml"), sys.argv[2:]))
