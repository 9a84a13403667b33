"""The programs that launch Triton's kernels, built beforehand, so that no C compiler is needed where they run.

Triton writes one in C for each list of kinds of arguments, and another that knows the driver, and compiles them when a
kernel is first used. They depend neither on the card nor on shapes or types of tensors, so that all there can be of our
kernels are a few: `python -m wan22_inference.engine.kernels FOLDER` builds them, with a compiler and without a card.
Where FOLDER below is, Triton takes them from there (its `knobs.build.impl`) and asks for no compiler.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import triton
from triton.backends.nvidia import driver

from wan22.errors import FailedPrecondition

FOLDER = Path(sys.prefix) / "share/wan22/launchers"
DRIVER_LIBRARY = "libcuda.so.1"
SCALARS = dict.fromkeys(("eps", "scale", "bonus"), ("fp32",))
"""Kinds of the arguments that are not pointers, constants or whole numbers."""
WHOLE = ("i32", "constexpr")
"""A whole number; Triton makes a constant of 1."""


class Built:
    """Programs of a folder, in place of Triton's way to build them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str, source: str, *_: object) -> str:
        """Returns the file of a program that Triton has written to a file. Raises FailedPrecondition."""
        found = self._folder / _file_of(Path(source).read_text())
        if not found.is_file():
            raise FailedPrecondition(
                f"{name} as Triton {triton.__version__} writes it is not in {self._folder}: build the folder anew with "
                "this version and these kernels, or remove it where there is a C compiler."
            )
        return str(found)


def use() -> None:
    """Has Triton take its programs from FOLDER, where that is."""
    if FOLDER.is_dir():
        triton.knobs.build.impl = Built(FOLDER)


def programs(kernels: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Yields name and text of each that the kernels, decorated by triton.jit, can ask for; some are the same."""
    yield "cuda_utils", (Path(driver.dirname) / "driver.c").read_text()
    for kernel in kernels:
        for kinds in itertools.product(*(_kinds(parameter) for parameter in kernel.params)):
            yield "__triton_launcher", driver.make_launcher({}, dict(enumerate(kinds)), None)


def build(folder: Path, wanted: Iterable[tuple[str, str]]) -> None:
    """Builds programs by the C compiler of this machine, which needs no driver of a card."""
    folder.mkdir(parents=True, exist_ok=True)
    python = sysconfig.get_path("include", "posix_prefix")
    with tempfile.TemporaryDirectory() as work:
        # Linking only asks for the library's name; the library itself comes with the card.
        _compile(Path(work), "", DRIVER_LIBRARY, f"-Wl,-soname,{DRIVER_LIBRARY}")
        # A linker that drops libraries of which it sees no use, as Ubuntu's does, would drop this one: it is empty.
        library = (f"-L{work}", "-Wl,--no-as-needed", f"-l:{DRIVER_LIBRARY}")
        flags = [*(f"-I{found}" for found in (python, *driver.include_dirs)), *library]
        for text in {text for _, text in wanted}:
            _compile(Path(work), text, "made.so", *flags)
            shutil.copyfile(Path(work) / "made.so", folder / _file_of(text))


def _kinds(parameter: Any) -> tuple[str, ...]:
    """What Triton can make of an argument of ours: pointers are called so."""
    if parameter.is_constexpr:
        return ("constexpr",)
    if parameter.name.endswith("_ptr"):
        return ("*u8",)  # all pointers are alike
    return SCALARS.get(parameter.name, WHOLE)


def _file_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest() + ".so"


def _compile(folder: Path, text: str, made: str, *flags: str) -> None:
    (folder / "program.c").write_text(text)
    command = ["gcc", "program.c", "-O3", "-shared", "-fPIC", "-Wno-psabi", "-o", made, *flags]
    subprocess.run(command, cwd=folder, check=True)
