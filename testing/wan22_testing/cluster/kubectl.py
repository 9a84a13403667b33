"""kubectl, asked from Python."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Refused(Exception):  # as its like in wan22.errors
    """kubectl failed; the text is what it said."""


class Kubectl:
    """One kubectl that asks one API server as one user."""

    def __init__(self, program: Path, kubeconfig: Path, *, seconds: float = 60.0) -> None:
        self.kubeconfig = kubeconfig
        self._program = program
        self._seconds = seconds

    def __call__(self, *arguments: str, manifest: Mapping[str, Any] | None = None) -> str:
        """Runs it and returns what it printed; the manifest is its standard input, for `-f -`. Raises Refused."""
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self._cache)}
        done = subprocess.run(
            [str(self._program), *arguments],
            input=json.dumps(manifest) if manifest is not None else None,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=self._seconds,
        )
        if done.returncode:
            raise Refused(done.stderr.strip())
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """The object, or the list of them, that `kubectl get` finds."""
        return json.loads(self("get", *arguments, "--output", "json"))

    def apply(self, manifest: Mapping[str, Any], *arguments: str) -> Any:
        """Server-side apply of one object; returns what the API server made of it. Raises Refused."""
        flags = ("--server-side", "--filename", "-", "--output", "json")
        return json.loads(self("apply", *flags, *arguments, manifest=manifest))

    @property
    def _cache(self) -> Path:
        """Of what the API server has, which is another one's business as soon as its port is."""
        return self.kubeconfig.parent / "kubectl-cache"
