"""The machine's way to a package index, for builds: it reaches pip as secrets, which no image keeps."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

TAKEN_OVER = ("index-url", "extra-index-url", "trusted-host", "default-timeout", "retries")
CERTIFICATE = "/run/secrets/pip-cert"
"""Where a build finds the authority that `cert` names."""


def write_pip_secrets(folder: Path) -> dict[str, Path]:
    """Returns the build's secrets by their ids: `pip.conf`, and `pip-cert` where an authority of one's own is set."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    settings = read_settings(listed)
    lines = [f"{name} = {settings[name]}" for name in TAKEN_OVER if name in settings]
    secrets = {"pip.conf": folder / "pip.conf"}
    if "cert" in settings:
        secrets["pip-cert"] = Path(settings["cert"])
        lines.append(f"cert = {CERTIFICATE}")
    secrets["pip.conf"].write_text("\n".join(["[global]", *lines, ""]))
    return secrets


def read_settings(listed: str) -> dict[str, str]:
    """Reads what `pip config list` prints: `install.…` wins over `global.…`, a variable over both."""
    ranks = {"global": 0, "install": 1, ":env:": 2}
    found: dict[str, tuple[int, str]] = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.partition(".")
        rank = ranks.get(section, -1)
        if rank >= found.get(name, (0, ""))[0]:
            found[name] = (rank, str(ast.literal_eval(value)).replace("\n", " "))
    return {name: value for name, (_, value) in found.items()}
