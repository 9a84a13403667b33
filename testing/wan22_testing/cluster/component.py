"""One program of a test cluster: started, asked whether it is well, stopped, killed."""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import subprocess
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from wan22.bound_to_parent import bound_to_parent
from wan22.errors import Unavailable

POLL_SECONDS = 0.05
LOG_TAIL = 3000


class Component:
    """A program with flags and a page that answers 200 when it is well; its output goes to a log file.

    It may be started again: flags, and so ports and folders, stay the same. It ends with the thread that started it
    at the latest, so that a killed test run leaves nothing.
    """

    def __init__(
        self,
        program: Path,
        log: Path,
        flags: Mapping[str, object],
        *,
        port: int,
        health: str,
        tls: ssl.SSLContext | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.program = program
        self.log = log
        self.flags = flags
        self._port = port
        self._health = health
        self._tls = tls
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """True while it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts it; `wait_until_ready` waits for its health."""
        command = [str(self.program), *(f"--{name}={value}" for name, value in self.flags.items())]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                bound_to_parent(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
                env={**os.environ, **self._environment},
            )

    def wait_until_ready(self, seconds: float = 90.0) -> None:
        """Returns when it is well. Raises Unavailable with the end of its log if it ends or the time is over."""
        deadline = time.monotonic() + seconds
        while not self._is_well():
            if not self.running:
                raise Unavailable(f"{self.program.name} ended before it was ready.{self._end_of_log()}")
            if time.monotonic() > deadline:
                raise Unavailable(f"{self.program.name} is not ready after {seconds:g} s.{self._end_of_log()}")
            time.sleep(POLL_SECONDS)

    def stop(self, seconds: float = 10.0) -> None:
        """Asks it to stop (SIGTERM), and kills it if it has not after `seconds`."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def pause(self) -> None:
        """SIGSTOP: its connections stay open, and nobody is answered."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def _is_well(self) -> bool:
        if self._tls is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5.0)
        else:
            connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=5.0, context=self._tls)
        with closing(connection):
            try:
                connection.request("GET", self._health)
                return connection.getresponse().status == http.HTTPStatus.OK
            except (OSError, http.client.HTTPException):
                return False  # it does not listen yet

    def _end_of_log(self) -> str:
        return f" The end of {self.log}:\n{self.log.read_text(errors='replace')[-LOG_TAIL:]}"
