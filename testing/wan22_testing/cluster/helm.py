"""helm, asked from Python."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from wan22_testing.cluster.kubectl import Refused
from wan22_testing.cluster.programs import Programs


class Helm:
    """One helm that asks one API server as one user, with a home of its own."""

    def __init__(self, programs: Programs, kubeconfig: Path, *, seconds: float = 120.0) -> None:
        programs.require("helm")
        self._program = programs.path("helm")
        self._kubeconfig = kubeconfig
        self._seconds = seconds

    def __call__(self, *arguments: str) -> str:
        """Runs it and returns what it printed. Raises Refused."""
        home = self._kubeconfig.parent / "helm"
        folders = {f"HELM_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        done = subprocess.run(
            [str(self._program), *arguments],
            env={**os.environ, "KUBECONFIG": str(self._kubeconfig), **folders},
            capture_output=True,
            text=True,
            check=False,
            timeout=self._seconds,
        )
        if done.returncode:
            raise Refused(done.stderr.strip())
        return done.stdout
