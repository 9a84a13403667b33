"""One real service process of wan22: started, asked for its health, paused, killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from wan22.channels import open_channel

PORTS = range(10_000, 20_000)
"""Below those that the kernel gives to outgoing connections, one of which might take one before its server does."""

BLOCK = 500
"""Ports that one process of tests has for itself: a server binds its port seconds after it was told which one."""


def _own_ports() -> Iterator[int]:
    """The ports of a block that no other process of this machine has, in turn, for ever."""
    blocks = [PORTS[start : start + BLOCK] for start in range(0, len(PORTS), BLOCK)]
    random.SystemRandom().shuffle(blocks)
    for block in blocks:
        with socket.socket(socket.AF_UNIX) as claim, suppress(OSError):
            claim.bind(f"\0wan22-test-ports-{block.start}")  # a name alone; the kernel frees it with the process
            claim.detach()  # left open
            while True:
                yield from block
    raise RuntimeError(f"{len(blocks)} processes of tests have all ports from {PORTS.start} to {PORTS.stop - 1}")


_ports = _own_ports()


def free_port() -> int:
    """A port that nobody listens on now, and that no process of tests was told lately."""
    for port in _ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("the ports have no end")


def environment_of(code: Path | None) -> dict[str, str]:
    """The environment here, for a program of the packages in a folder, or of those that run here when None."""
    if code is None:
        return dict(os.environ)
    # what coverage starts by goes: it measures the code that is here
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS_")}
    return kept | {"PYTHONPATH": str(code)}


class ServiceProcess:
    """`python -m MODULE --port … --health-port … FLAGS`; its output goes to a log file.

    The ports stay the same over restarts, as those of a supervised process do. One that serves nothing has its health
    port alone.
    """

    def __init__(self, module: str, log: Path, *, serves: bool = True, **flags: object) -> None:
        self.module = module
        self.log = log
        self.flags = flags
        self.code: Path | None = None
        """A folder of another release's packages that it runs, rather than those of this process."""
        self._serves = serves
        self.port = free_port()
        self.health_port = free_port()
        self.host = str(flags.get("host", "127.0.0.1"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """host:port of its gRPC services."""
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running process."""
        return self._started().pid

    def start(self, environment: Mapping[str, str] | None = None, under: Sequence[str] = ()) -> None:
        """Starts it; `until` waits for its health. `under` is a command that executes the one which follows it."""
        command = [*under, sys.executable, "-m", self.module, "--health-port", str(self.health_port)]
        if self._serves:
            command += ["--port", str(self.port)]
        for name, value in self.flags.items():
            flag = f"--{name.replace('_', '-')}"
            command += [flag] if value is True else [flag, str(value)]
        variables = environment_of(self.code) | {"OMP_NUM_THREADS": "1", **(environment or {})}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=variables)

    async def until(self, service: str = "ready", *, seconds: float = 150.0) -> None:
        """Returns when its health service says that `service` is served. Raises AssertionError with its log."""
        deadline = time.monotonic() + seconds
        async with open_channel(f"{self.host}:{self.health_port}") as channel:  # gRPC itself pauses for minutes
            stub: Any = health_pb2_grpc.HealthStub(channel)  # typed as if it were without methods
            while time.monotonic() < deadline:
                if not self.running:
                    break
                try:
                    request = health_pb2.HealthCheckRequest(service=service)
                    answer = await stub.Check(request, timeout=2.0, wait_for_ready=True)
                except grpc.aio.AioRpcError:
                    continue
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
                await asyncio.sleep(0.05)
        raise AssertionError(f"{self.module} is not {service} after {seconds} s:\n{self.log.read_text()[-4000:]}")

    async def until_logged(self, text: str, *, seconds: float = 150.0) -> None:
        """Returns when its log has the text. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                if self.log.exists() and text in self.log.read_text():
                    return
                await asyncio.sleep(0.05)  # a log has no events to wait for

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        self._signal(signal.SIGKILL)
        self._wait(10)

    def pause(self) -> None:
        """SIGSTOP: it holds everything and does nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def stop(self, timeout: float = 30.0) -> int:
        """SIGTERM, and waits for the exit code. Raises subprocess.TimeoutExpired."""
        self._signal(signal.SIGTERM)
        return self._wait(timeout)

    def wait(self, timeout: float = 30.0) -> int:
        """The exit code, once it has ended by itself. Raises subprocess.TimeoutExpired."""
        return self._wait(timeout)

    @property
    def running(self) -> bool:
        """True while the process has not ended."""
        return self._process is not None and self._process.poll() is None

    def _signal(self, number: signal.Signals) -> None:
        self._started().send_signal(number)

    def _wait(self, timeout: float) -> int:
        return self._started().wait(timeout)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.module} was never started")
        return self._process
