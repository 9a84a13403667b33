"""One process of `wan22 up`: started, asked for its health, stopped; never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from wan22.bound_to_parent import bound_to_parent
from wan22.errors import FailedPrecondition, Unavailable

POLL_SECONDS = 0.2
LOG_TAIL_LINES = 8


@dataclass(frozen=True)
class ProcessSpec:
    """What to run and where it answers."""

    name: str
    module: str
    """Run as `python -m`."""
    arguments: Sequence[str]
    host: str
    port: int
    health_port: int
    http_port: int | None
    """None for a process without HTTP."""
    log: Path
    environment: Mapping[str, str]
    """Added to this process's own."""

    @property
    def target(self) -> str:
        """host:port of its services."""
        return f"{self.host}:{self.port}"

    def check_ports(self) -> None:
        """Raises FailedPrecondition when something else listens on one of its ports."""
        for setting, port in (("port", self.port), ("health port", self.health_port), ("HTTP port", self.http_port)):
            if port is None:
                continue
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does: TIME_WAIT is no reason
                try:
                    probe.bind((self.host, port))
                except OSError as error:
                    raise FailedPrecondition(
                        f"The {setting} {port} of {self.name} is taken ({error.strerror}): stop what listens there, or "
                        "choose other ports by --port: the gateway gets it, the registry the next one, workers those "
                        "from 10 further on, and health answers 1000 above each; HTTP answers at --http-port."
                    ) from error


class ChildProcess:
    """A running process of a spec, in a process group of its own, its output in its log."""

    def __init__(self, spec: ProcessSpec, process: asyncio.subprocess.Process) -> None:
        self.spec = spec
        self._process = process

    @classmethod
    async def start(cls, spec: ProcessSpec) -> ChildProcess:
        """Starts it. It ends with this process's main thread at the latest."""
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        with spec.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *bound_command(spec.module, spec.arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **spec.environment},
                process_group=0,  # the terminal's Ctrl-C is ours to handle
            )
        return cls(spec, process)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ended(self) -> str:
        """Returns once it has ended, with how: `exit code 1` or `SIGKILL`."""
        code = await self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    async def ready(self, service: str = "ready") -> None:
        """Returns once it says that it serves. Raises Unavailable with the end of its log when it ends before."""
        ended = asyncio.create_task(self.ended())
        try:
            async with grpc.aio.insecure_channel(f"{self.spec.host}:{self.spec.health_port}") as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)  # typed as if it were without methods
                while not await _serves(stub, service):
                    done, _ = await asyncio.wait([ended], timeout=POLL_SECONDS)
                    if done:
                        raise Unavailable(
                            f"{self.spec.name} ended before it was ready ({ended.result()}).{self._end_of_log()}"
                        )
        finally:
            ended.cancel()

    async def stop(self, grace: float) -> None:
        """Asks it to stop (SIGTERM) and kills its process group if it has not after `grace` seconds."""
        if self._process.returncode is None:
            self._process.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._process.wait()
        self.kill()
        await self._process.wait()

    def kill(self) -> None:
        """Kills its process group: also what it started and left."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _end_of_log(self) -> str:
        lines = self.spec.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "".join(f"\n  {line}" for line in [f"The end of {self.spec.log}:", *lines])


def bound_command(module: str, arguments: Sequence[str]) -> list[str]:
    """`python -m MODULE` that ends with this process's main thread at the latest."""
    return bound_to_parent([sys.executable, "-m", module, *arguments])


async def _serves(stub: Any, service: str) -> bool:
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=2.0)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
