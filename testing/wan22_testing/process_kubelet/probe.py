"""One probe of a container, run as a kubelet runs it."""

from __future__ import annotations

import asyncio
import http.client
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


@dataclass(frozen=True)
class Place:
    """Where a container is probed."""

    address: str
    ports: Mapping[str, int]
    """By name."""
    environment: Mapping[str, str]
    """For probes that run a command."""
    health: dict[str, bool] = field(default_factory=dict)
    """What a hosted program says of itself, by service."""

    def port(self, named: int | str) -> int:
        """The number of a port that is given by number or name."""
        return named if isinstance(named, int) else self.ports[named]


class Probe:
    """Asks again and again; tells a turn of its verdict, which takes some answers in a row."""

    def __init__(self, spec: Mapping[str, Any], place: Place) -> None:
        self._spec = spec
        self._place = place

    async def run(self, turned: Callable[[bool], None], *, until_success: bool = False) -> bool:
        """Asks for ever, or until the verdict is success; ends with False where `until_success` meets a failure."""
        spec = self._spec
        await asyncio.sleep(spec.get("initialDelaySeconds", 0))
        verdict: bool | None = None
        streak, last = 0, False
        while True:
            answer = await self._ask()
            streak = streak + 1 if answer == last else 1
            last = answer
            enough = spec.get("successThreshold", 1) if answer else spec.get("failureThreshold", 3)
            if streak >= enough and answer != verdict:
                verdict = answer
                turned(verdict)
                if until_success:
                    return verdict
            await asyncio.sleep(spec.get("periodSeconds", 10))

    async def _ask(self) -> bool:
        if self._place.health and (wanted := self._spec.get("grpc")):
            return self._place.health[wanted.get("service") or ""]
        seconds = float(self._spec.get("timeoutSeconds", 1))
        return await asyncio.to_thread(self._answers, seconds)

    def _answers(self, seconds: float) -> bool:
        spec, place = self._spec, self._place
        if wanted := spec.get("grpc"):
            return _serves(f"{place.address}:{place.port(wanted['port'])}", wanted.get("service") or "", seconds)
        if wanted := spec.get("httpGet"):
            host = wanted.get("host") or place.address
            return _is_well(host, place.port(wanted["port"]), wanted.get("path") or "/", seconds)
        if wanted := spec.get("exec"):
            return _succeeds(wanted["command"], place.environment, seconds)
        port = place.port(spec["tcpSocket"]["port"])
        return _listens(place.address, port, seconds)


def _serves(address: str, service: str, seconds: float) -> bool:
    with grpc.insecure_channel(address) as channel:  # a new one, as a kubelet dials: none waits to connect again
        stub: Any = health_pb2_grpc.HealthStub(channel)  # typed as if it were without methods
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=seconds)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _succeeds(command: Sequence[str], environment: Mapping[str, str], seconds: float) -> bool:
    program = shutil.which(command[0], path=environment["PATH"]) or command[0]
    try:
        done = subprocess.run(
            [program, *command[1:]], env=dict(environment), timeout=seconds, check=False, capture_output=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _listens(address: str, port: int, seconds: float) -> bool:
    try:
        socket.create_connection((address, port), seconds).close()
    except OSError:
        return False
    return True


def _is_well(host: str, port: int, path: str, seconds: float) -> bool:
    with closing(http.client.HTTPConnection(host, port, timeout=seconds)) as connection:
        try:
            connection.request("GET", path)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return False
    return HTTPStatus.OK <= status < HTTPStatus.BAD_REQUEST
