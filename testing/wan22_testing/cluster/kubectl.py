"""kubectl, asked from Python."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wan22.bound_to_parent import bound_to_parent


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
        done = subprocess.run(
            self.command(*arguments),
            input=json.dumps(manifest) if manifest is not None else None,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=self._seconds,
        )
        if done.returncode:
            raise Refused(done.stderr.strip())
        return done.stdout

    @contextmanager
    def watch(self, *arguments: str) -> Iterator[Iterable[str]]:
        """The lines that `kubectl get --watch` prints, as it prints them; ended when the block is left."""
        command = bound_to_parent(self.command("get", "--watch", *arguments))
        with subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process.stdout or ()
            finally:
                process.kill()

    def get(self, *arguments: str) -> Any:
        """The object, or the list of them, that `kubectl get` finds."""
        return json.loads(self("get", *arguments, "--output", "json"))

    def apply(self, manifest: Mapping[str, Any], *arguments: str) -> Any:
        """Server-side apply of one object; returns what the API server made of it. Raises Refused."""
        flags = ("--server-side", "--filename", "-", "--output", "json")
        return json.loads(self("apply", *flags, *arguments, manifest=manifest))

    def command(self, *arguments: str) -> list[str]:
        """The command by which it is run, in its `environment`."""
        return [str(self._program), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        """With the API server and the user that it asks."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self._cache)}

    @property
    def _cache(self) -> Path:
        """Of what the API server has, which is another one's business as soon as its port is."""
        return self.kubeconfig.parent / "kubectl-cache"
