"""A port of this machine that leads to a pod of a cluster, by `kubectl port-forward`."""

from __future__ import annotations

import re
import subprocess
from types import TracebackType
from typing import Self

from wan22.bound_to_parent import bound_to_parent
from wan22.errors import Unavailable
from wan22_testing.cluster.kubectl import Kubectl

FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) -> ")


class PortForward:
    """Leads to one port of a target such as `service/NAME`, of which kubectl takes a ready pod; a context manager."""

    def __init__(self, kubectl: Kubectl, target: str, port: int, *arguments: str) -> None:
        self._command = kubectl.command("port-forward", target, f":{port}", "--address=127.0.0.1", *arguments)
        self._environment = kubectl.environment
        self._process: subprocess.Popen[str] | None = None
        self.address = ""
        """host:port, once it is entered."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            bound_to_parent(self._command),
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said = ""
        for line in self._process.stdout or ():
            said += line
            if found := FORWARDING.match(line):
                self.address = f"127.0.0.1:{found[1]}"
                return self
        self._end()
        raise Unavailable(f"{' '.join(self._command)} ended: {said.strip()}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
