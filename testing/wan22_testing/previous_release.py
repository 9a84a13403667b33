"""The release before this one, built from its commit: what services of this version must work with."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from wan22.errors import FailedPrecondition

VERSION = "0.1.0"
"""To be raised, with the commit, by each release: skew is promised to the one before."""
COMMIT = "f93d5b5b51f37ce2d44b5cd1067b1596a480baeb"
"""What its tag v0.1.0 names."""
REPOSITORY = Path(__file__).resolve().parents[2]


def packages() -> Path:
    """A folder of the release's packages, for PYTHONPATH; built once on a machine, which takes some seconds.

    Raises FailedPrecondition where the commit is not at hand: in a shallow checkout, or in none.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wan22" / "releases"
    folder = cache / COMMIT
    if not folder.is_dir():
        _check_history()
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second session waits for the first, and finds its work done
            if not folder.is_dir():
                _build(folder)
    return folder


def _check_history() -> None:
    found = subprocess.run(
        ["git", "cat-file", "-e", f"{COMMIT}^{{commit}}"], cwd=REPOSITORY, check=False, capture_output=True
    )
    if found.returncode:
        raise FailedPrecondition(
            f"Release {VERSION} is commit {COMMIT[:10]}, which is not in the history of {REPOSITORY}: fetch it whole."
        )


def _build(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        source, wheels, unpacked = (Path(made) / name for name in ("source", "wheels", "unpacked"))
        source.mkdir()
        archive = Path(made) / "source.tar"
        subprocess.run(["git", "archive", "--output", str(archive), COMMIT], cwd=REPOSITORY, check=True)
        subprocess.run(["tar", "-xf", str(archive), "-C", str(source)], check=True)
        # without isolation: the tools are the installed ones, and nothing is downloaded
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        built = subprocess.run(
            [*command, "--wheel-dir", str(wheels), str(source)], check=False, capture_output=True, text=True
        )
        if built.returncode:
            raise FailedPrecondition(f"The wheel of release {VERSION} cannot be built: {built.stderr[-2000:]}")
        (wheel,) = wheels.glob("*.whl")
        with zipfile.ZipFile(wheel) as file:
            file.extractall(unpacked)
        unpacked.rename(folder)  # whole or not at all
